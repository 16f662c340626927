"""Numbers of a run: JSON lines and TensorBoard events."""

import json
import math
import pathlib
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from ghn_jax.files import atomic_file

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends rows to ``metrics.jsonl`` and TensorBoard event files of a run's folder.

    A run that resumes at `first_step` drops what an interrupted run wrote from there on, so every step is there once.
    """

    def __init__(self, folder: pathlib.Path, first_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        if path.exists():
            kept = [json.dumps(row) for row in read_metrics(folder) if row["step"] < first_step]
            with atomic_file(path) as new:
                new.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")
        # Not tensorboardX's SummaryWriter: its thread ends when a disk is full, and the run would wait for it for ever.
        (folder / "tensorboard").mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "tensorboard" / "events"))
        start = SessionLog(status=SessionLog.START)  # TensorBoard forgets what came after this step before
        self._events.write_event(Event(step=first_step, wall_time=time.time(), session_log=start))

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One row of a `kind` ("train", "validation", ..) for a step."""
        row = {"kind": kind, "step": step, **{key: _plain(value) for key, value in values.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for key, value in values.items():
            event = Event(step=step, wall_time=time.time(), summary=scalar(f"{kind}/{key}", value))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Flushes everything."""
        self._file.close()
        self._events.close()


def _plain(value: float) -> float | int | str:
    """JSON has no nan and no infinity: they become text."""
    if isinstance(value, int):
        return value
    number = float(value)
    return float(f"{number:.7g}") if math.isfinite(number) else str(number)


def read_metrics(folder: pathlib.Path) -> list[dict]:
    """Rows of ``metrics.jsonl``; a last line cut short by a kill is left out.

    Raises:
      ValueError: if the file is missing or damaged before its last line.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        raise ValueError(f"{path} does not exist: {folder} is no folder of a run")
    lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: {error}") from error
    return rows

"""Checkpoints of a run, by orbax: written aside and renamed, so that a kill at any moment leaves whole ones only.

Each is a folder named by the number of updates that it is after: the arrays of the training state, and a record
(`records.Record`) with everything else and with the digests that show later whether it is still what was written.
"""

import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from ghn_jax.files import remove_folder
from ghn_jax.runs.records import (
    RECORD,
    UNMEASURED,
    DamagedCheckpointError,
    Record,
    check_arrays,
    check_layout,
    digests,
    read_record,
)

Tree = TypeVar("Tree")

FOLDER = "checkpoints"
"""Of a run's folder."""

DAMAGED = "damaged"
"""Of a run's folder: where damaged checkpoints are moved to."""

_STATE = "state"
_UNFINISHED = ".orbax-checkpoint-tmp"
_LOG = logging.getLogger(__name__)


def checkpoint_folder(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Where the checkpoint after `step` updates of a run lies."""
    return folder.resolve() / FOLDER / str(step)


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Updates after which the run in a folder has checkpoints, in order; [] if it has none."""
    place = folder / FOLDER
    return sorted(int(path.name) for path in place.iterdir() if path.name.isdigit()) if place.is_dir() else []


def best_step(folder: pathlib.Path) -> int | None:
    """The checkpoint of a run with the highest metric, the newest of equal ones; None without any.

    Raises:
      DamagedCheckpointError: if the metric of one of them cannot be known.
    """
    return _best({step: read_record(checkpoint_folder(folder, step)).metric for step in saved_steps(folder)})


def restore(folder: pathlib.Path, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """The state of a checkpoint, with the structure, dtypes and placement of `like`, and the rest.

    Raises:
      DamagedCheckpointError: if it is not as it was written; names what.
      ValueError: without such a checkpoint, or if it has other arrays than `like`.
    """
    if step not in saved_steps(folder):
        raise ValueError(f"{folder / FOLDER} holds no checkpoint of step {step}, only of {saved_steps(folder)}")
    place = checkpoint_folder(folder, step)
    record = read_record(place)
    if record.digests is None:
        _LOG.warning("%s was written without digests: damage of its arrays would not be noticed", place)
    else:
        check_layout(place, record.digests, like)
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            items = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(target)})
            state = checkpointer.restore(place, args=items)[_STATE]
    except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):
        raise  # of this machine, not of the file
    except Exception as error:  # orbax and tensorstore raise whatever they stumble on
        reason = (str(error).splitlines() or [repr(error)])[0][:300]
        raise DamagedCheckpointError(f"{place / _STATE} cannot be read: {reason}") from error
    if record.digests is not None:
        check_arrays(place, record.digests, state)
    return state, record.rest


def set_aside(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Moves a damaged checkpoint out of the way, to where nothing is read or removed; returns where it lies then."""
    place = folder / DAMAGED
    place.mkdir(exist_ok=True)
    names = (str(step), *(f"{step}-{number}" for number in range(1, 1_000)))
    free = next(place / name for name in names if not (place / name).exists())
    os.rename(checkpoint_folder(folder, step), free)
    return free


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what killed processes left of checkpoints that they were writing; only while nobody writes."""
    for path in (folder / FOLDER).glob(f"*{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


class Checkpoints:
    """Writes checkpoints, and keeps the last `keep_last` and the one with the highest metric.

    orbax's own manager is not used: it removes checkpoints in place, so that a kill leaves a part of one under its
    name, and it cannot be opened where one of them is damaged.
    """

    def __init__(self, folder: pathlib.Path, keep_last: int = 2) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        self._folder, self._keep_last = folder, keep_last
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

    def save(self, step: int, state: Any, rest: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts to save the state after `step` updates; one that is there already is left alone.

        Args:
          step: updates made.
          state: of arrays that this process holds whole; they may be given up as soon as this returns.
          rest: a JSON object with everything else.
          metric: that ranks checkpoints, if it was measured.
        """
        self._finish()
        if step in saved_steps(self._folder):
            return
        record = Record(dict(rest), UNMEASURED if metric is None else float(metric), digests(state))
        items = {_STATE: ocp.args.StandardSave(state), RECORD: ocp.args.JsonSave(record.to_json())}
        self._writer.save(checkpoint_folder(self._folder, step), args=ocp.args.Composite(**items))

    def check(self) -> None:
        """Raises the error of a checkpoint that could not be written in the background."""
        self._writer.check_for_errors()

    def close(self) -> None:
        """Waits until everything is on disk."""
        try:
            self._finish()
        finally:
            self._writer.close()

    def _finish(self) -> None:
        """Waits for the checkpoint being written, and removes those that are no longer kept."""
        self._writer.wait_until_finished()
        if jax.process_index() != 0:
            return
        scores: dict[int, float] = {}
        for step in saved_steps(self._folder):
            with contextlib.suppress(DamagedCheckpointError):  # neither ranked nor removed
                scores[step] = read_record(checkpoint_folder(self._folder, step)).metric
        kept = {*list(scores)[-self._keep_last :], _best(scores)}
        for step in scores.keys() - kept:
            remove_folder(checkpoint_folder(self._folder, step))


def _best(scores: Mapping[int, float]) -> int | None:
    return max(scores, key=lambda step: (scores[step], step), default=None)

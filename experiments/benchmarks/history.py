"""Figures of all benchmarks over time: a line of JSON for each time that all of them ran, and a picture of them."""

import datetime
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ghn_jax.runs.cores import available_cores
from ghn_jax.runs.environment import versions
from ghn_jax.runs.pictures import history_picture

FILE = pathlib.Path(__file__).with_name("history.jsonl")
COMMAND = pathlib.Path(__file__).resolve().parents[1] / "benchmark.py"

SHOWN = {
    ("sampling", "architectures_per_second"): "architectures drawn a second",
    ("predict", "steady_s"): "prediction for ResNet-50, s",
    ("networks", "seconds"): "16 networks, forward and backward, s",
    ("step", "step_s"): "meta-training step, s",
    ("cold", "update_100_s"): "100 updates from an empty cache, s",
}
"""Benchmark and name of each figure that is drawn, and its title."""


def measure(names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Runs benchmarks one after the other, each in a process of its own; what they print goes to standard error.

    Returns:
      ``time`` (UTC), ``versions``, ``processor``, ``cores`` and, by the name of the benchmark, ``figures``.
    """
    figures = {}
    for name in names:
        print(f"benchmark {name}", file=sys.stderr, flush=True)
        lines = list(_lines([sys.executable, str(COMMAND), name, "--json", f"--repeats={repeats}"]))
        figures[name] = json.loads(lines[-1])
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "processor": _processor(),
        "cores": available_cores(),
        "figures": figures,
    }


def _lines(command: Sequence[str]) -> Iterator[str]:
    """What a command prints, passed on as it comes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            yield line
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")


def _processor() -> str:
    """Name of the processor's model, where the system tells it."""
    try:
        rows = [row.partition(":") for row in pathlib.Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        rows = []
    return next((value.strip() for name, _, value in rows if name.strip() == "model name"), platform.machine())


def picture(file: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Draws the figures of `SHOWN` over the lines of a file; returns the picture's path.

    Raises:
      ValueError: for a file without a whole line of figures.
    """
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append((f"{row['time'][:10]} {row['versions'].get('commit', '')[:7]}".strip(), row["figures"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}, line {number} is no line of benchmark.py all: {error!r}") from None
    if not rows:
        raise ValueError(f"{file} is empty: python experiments/benchmark.py all >> {file} adds a line")
    names = [name for name, _ in rows]
    curves = {title: [found.get(part, {}).get(key) for _, found in rows] for (part, key), title in SHOWN.items()}
    return history_picture(names, curves, path)

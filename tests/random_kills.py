"""SIGKILL at random moments, some of them while a checkpoint is being written."""

import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Callable

from ghn_jax.runs.checkpoints import FOLDER

WRITING_SECONDS = 0.05
"""About as long as a checkpoint of a tiny run is being written."""


def lines(path: pathlib.Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def is_writing(folder: pathlib.Path) -> bool:
    """Whether a checkpoint is being written, or was when the run was killed."""
    return any((folder / FOLDER).glob("*orbax-checkpoint-tmp*"))


def wait_until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not ready():
        if process.poll() is not None:
            raise AssertionError(f"ended by itself: {process.communicate()[0]}")
        if time.monotonic() > end:
            raise AssertionError("nothing happened for ten minutes")
        time.sleep(0.001)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def kill_any_time(process: subprocess.Popen[str], rng: random.Random, rows: pathlib.Path) -> None:
    """Kills a process as it starts, or after it has written a few more lines to a file."""
    more, there = rng.choice((0, 0, 1, 2, 4)), lines(rows)
    wait_until(process, lambda: lines(rows) < there or lines(rows) >= there + more)  # a run drops rows that it repeats
    time.sleep(rng.uniform(0, 0.2 if more else 8))
    kill(process)


def kill_while_writing(process: subprocess.Popen[str], rng: random.Random, folder: pathlib.Path) -> bool:
    """Kills a run while it writes a checkpoint, not its first; returns whether it really was writing."""
    wait_until(process, lambda: not is_writing(folder))  # what the kill before left is removed
    for _ in range(rng.choice((1, 2, 3))):
        wait_until(process, lambda: is_writing(folder))
        wait_until(process, lambda: not is_writing(folder))
    wait_until(process, lambda: is_writing(folder))
    time.sleep(rng.uniform(0, WRITING_SECONDS))
    kill(process)
    return is_writing(folder)

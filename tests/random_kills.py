"""SIGKILL at random moments, some of them while a checkpoint is being written."""

import os
import pathlib
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Protocol

from tiny_runs import environment

from ghn_jax.runs.checkpoints import FOLDER

WRITING_SECONDS = 0.05
"""About as long as a checkpoint of a tiny run is being written."""


class Process(Protocol):
    """What kills and waits need of a process; subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        ...

    def kill(self) -> None:
        """By SIGKILL."""
        ...

    def communicate(self) -> tuple[str, str | None]:
        """What it said until its end."""
        ...


class Forks:
    """Runs of the regression task, forked from a process that has imported all they need: a start costs 0.2 s."""

    PROGRAM = """
import os, pathlib, sys
import optax, orbax.checkpoint, tensorboardX.event_file_writer
import ghn_jax.runs
for line in sys.stdin:
    folder, steps = line.split()
    child = os.fork()
    if child == 0:
        import regression_task
        regression_task.train(pathlib.Path(folder), int(steps))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self) -> None:
        paths = os.pathsep.join(sys.path)
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", self.PROGRAM],
            env=environment(PYTHONPATH=paths, JAX_PLATFORMS="cpu"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: pathlib.Path, steps: int) -> "Fork":
        """A run in a folder; one at a time."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{folder} {steps}\n")
        self._server.stdin.flush()
        return Fork(int(self._server.stdout.readline()), self._server)

    def close(self) -> None:
        self._server.communicate()


class Fork:
    """One run of `Forks`."""

    def __init__(self, pid: int, server: subprocess.Popen[str]) -> None:
        self._pid, self._server = pid, server
        self.returncode: int | None = None

    def poll(self) -> int | None:
        assert self._server.stdout is not None
        if self.returncode is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.communicate()
        return self.returncode

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> tuple[str, None]:
        assert self._server.stdout is not None
        if self.returncode is None:
            self.returncode = int(self._server.stdout.readline())
        return f"exit code {self.returncode}", None


def lines(path: pathlib.Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def is_writing(folder: pathlib.Path) -> bool:
    """Whether a checkpoint is being written, or was when the run was killed."""
    return any((folder / FOLDER).glob("*orbax-checkpoint-tmp*"))


def wait_until(process: Process, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not ready():
        if process.poll() is not None:
            raise AssertionError(f"ended by itself: {process.communicate()[0]}")
        if time.monotonic() > end:
            raise AssertionError("nothing happened for ten minutes")
        time.sleep(0.001)


def kill(process: Process) -> None:
    process.kill()
    process.communicate()
    assert process.poll() == -signal.SIGKILL


def kill_any_time(process: Process, rng: random.Random, rows: pathlib.Path, starts: float = 8) -> None:
    """Kills a process as it starts, within so many seconds, or after it has written a few more lines to a file."""
    more, there = rng.choice((0, 0, 1, 2, 4)), lines(rows)
    wait_until(process, lambda: lines(rows) < there or lines(rows) >= there + more)  # a run drops rows that it repeats
    time.sleep(rng.uniform(0, 0.2 if more else starts))
    kill(process)


def kill_while_writing(process: Process, rng: random.Random, folder: pathlib.Path) -> bool:
    """Kills a run while it writes a checkpoint, not its first; returns whether it really was writing."""
    wait_until(process, lambda: not is_writing(folder))  # what the kill before left is removed
    for _ in range(rng.choice((1, 2, 3))):
        wait_until(process, lambda: is_writing(folder))
        wait_until(process, lambda: not is_writing(folder))
    wait_until(process, lambda: is_writing(folder))
    time.sleep(rng.uniform(0, WRITING_SECONDS))
    kill(process)
    return is_writing(folder)

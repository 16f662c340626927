"""Kills a process before each of its file operations in turn: run in a process of its own, which forks."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[1]
COUNTED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
"""Python's audit events of operations that change names or open files; `os.fsync`, which has none, is counted too."""

STEP = "kill_points.step"
"""A further event to raise, with `sys.audit`, where a kill is wanted, such as half-way through a file."""


def kill_everywhere(prepare: Callable[[], None], act: Callable[[], None], check: Callable[[int], None]) -> int:
    """Runs `act` killed before its first, second, .. operation until it ends by itself.

    Args:
      prepare: makes the state before; run before each.
      act: what is killed.
      check: called after each kill with its number.

    Returns:
      How many operations `act` has.
    """
    for number in itertools.count():
        prepare()
        child = os.fork()
        if child == 0:
            _count_down(number)
            try:
                act()
            except BaseException as error:
                print(f"operation {number}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) == 0:
            return number
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"operation {number}: ended with {os.waitstatus_to_exitcode(status)}")
        check(number)
    raise AssertionError("unreachable")


def _count_down(operations: int) -> None:
    """Lets so many operations pass in this process, and kills it before the next."""
    left = operations

    def hook(event: str, _: tuple) -> None:
        nonlocal left
        if event in COUNTED or event == STEP:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        sys.audit(STEP)
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(hook)


def run(program: str, folder: pathlib.Path) -> list[str]:
    """Runs a program that uses `kill_everywhere` in a folder; returns the words that it printed."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.split()

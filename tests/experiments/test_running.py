"""How commands end: messages, exit codes, tracebacks where asked for, Ctrl-C."""

import errno
import pathlib
import re
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures.process import BrokenProcessPool

import jax
import pytest
import running
from tiny_runs import ROOT, environment, start

from ghn_jax.metatraining import TooManySkippedError
from ghn_jax.runs import WorkerError

COMMAND = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import running

running.quiet_start()


def main():
    print(sys.argv[1:], flush=True)
    {body}


running.run(main)
"""


def command(body: str, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command whose `main` does something."""
    program = COMMAND.format(folder=str(ROOT / "experiments"), body=body)
    done = subprocess.run(
        [sys.executable, "-c", program, *options], env=environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_broken_pipe_to_somewhere_else_is_told() -> None:
    code, _, told = command("ends = os.pipe(); os.close(ends[0]); os.write(ends[1], b'x')")
    assert (code, told) == (1, "-c: Broken pipe\n")


def test_errors_of_users_and_machines_are_a_message_and_faults_of_the_program_a_traceback() -> None:
    body = "open('/there/is/nothing')"
    assert command(body, "--a=1") == (1, "['--a=1']\n", "-c: /there/is/nothing: No such file or directory\n")
    code, out, told = command(body, "--debug", "--a=1")
    assert (code, out) == (1, "['--a=1']\n")
    assert told.startswith("Traceback")
    code, _, told = command("1 / 0")
    assert (code, told.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    assert command("pass") == (0, "[]\n", "")


@pytest.mark.parametrize("body", ["os.kill(os.getpid(), signal.SIGINT)", "raise KeyboardInterrupt"])
def test_ctrl_c_is_quiet(body: str) -> None:
    assert command(body) == (130, "[]\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_process_that_is_ended_from_outside_does_not_vanish_silently(number: signal.Signals) -> None:
    code, _, told = command(f"os.kill(os.getpid(), {int(number)})")
    assert code == -number
    assert told.startswith("-c: the process was ended from outside: killed, or the system had no memory left")


def test_a_reader_that_has_enough_is_no_error() -> None:
    program = COMMAND.format(folder=str(ROOT / "experiments"), body="print('y' * 1_000_000, flush=True)")
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("hid must be positive"), "hid must be positive"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "runs/a: No space left on device; free some"),
        (OSError(errno.EROFS, "Read-only file system", "a", None, "b"), "a -> b: Read-only file system; choose"),
        (OSError("something else"), "something else"),
        (MemoryError(), "out of memory: MemoryError. Smaller batches"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nwhere"), "out of memory: RESOURCE_EXHAUSTED: 9 GB. Sma"),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: no\nwhere"), "UNAVAILABLE: no"),
        (BrokenProcessPool("ended"), "a worker process was killed"),
        (WorkerError("killed again"), "killed again"),
        (TooManySkippedError("7 of 9"), "7 of 9"),
        (zipfile.BadZipFile("no zip"), "a file is damaged: no zip"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "'utf-8' codec can't decode"),
    ],
)
def test_what_is_told(error: Exception, told: str) -> None:
    assert (running.message(error) or "").startswith(told)


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("INTERNAL: fault"), TypeError("no")])
def test_faults_are_not_told_as_mistakes(error: Exception) -> None:
    assert running.message(error) is None


def test_a_run_whose_folder_cannot_be_made_says_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    process = start(tmp_path / "file" / "run", "--steps=1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"^meta_train: .*file.*: Not a directory$", output, re.MULTILINE)
    assert "Traceback" not in output


def interrupted(folder: pathlib.Path, seconds: float) -> tuple[int, str]:
    """Exit code and output of a run that gets Ctrl-C so long after its start."""
    process = start(folder, "--steps=100000", "--sampler-workers=1")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0])
def test_ctrl_c_while_a_run_starts_is_quiet(seconds: float, tmp_path: pathlib.Path) -> None:
    """A run that makes updates already ends after one of them, with exit code 0."""
    code, output = interrupted(tmp_path / "run", seconds)
    assert code in (130, 0)
    for word in ("Traceback", "KeyboardInterrupt", "leaked"):
        assert word not in output

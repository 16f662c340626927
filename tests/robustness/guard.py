"""Reads hostile and damaged files in a process apart, within bounds, and says how each of them ended.

A test of a format has a reader at the top level of a module, which returns everything that was read (arrays, plain
values, dataclasses, or mappings and sequences of them):

    def read(path: pathlib.Path) -> Any:
        return load_something(path)

    def test_damaged_files(tmp_path: pathlib.Path) -> None:
        good = write_something(tmp_path / "good.h5")
        outcomes = read_all(read, good, damaged_copies(good, tmp_path / "bad", count=12, seed=0))
        assert not faults(outcomes)

Every file has to be "good" (the same content as the undamaged one, which the process reads first, without bounds) or
"refused" (a ValueError that holds the file's name). Everything else is a fault: "silent" (other content), "bare"
(another exception, or one without the name), "crash", "hang", "memory". Hostile files that have no undamaged form go
through `read_all` beside any good one. Run as a program, this file is the process that reads.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

Kind = Literal["good", "refused", "silent", "bare", "crash", "hang", "memory"]
Reader = Callable[[pathlib.Path], Any]

SECONDS = 5.0
"""Processor time for one file. By the clock it may be six times as much, since a busy machine is no fault."""

MEMORY_BYTES = 10**9
"""That resident memory may grow by while one file is read."""

_CLOCK_FACTOR = 6
_ADDRESS_FACTOR = 3
"""Address space that may be added, as a multiple of `MEMORY_BYTES`: beyond it, memory is refused to the reader."""

_TESTS = pathlib.Path(__file__).resolve().parents[1]


class Outcome(NamedTuple):
    """How the reading of one file ended, with the exception's or signal's words."""

    file: pathlib.Path
    kind: Kind
    detail: str


def faults(outcomes: Iterable[Outcome]) -> list[str]:
    """Those that are neither good nor refused, in words."""
    return [f"{file.name}: {kind}: {detail}" for file, kind, detail in outcomes if kind not in ("good", "refused")]


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many of each kind."""
    return dict(collections.Counter(outcome.kind for outcome in outcomes))


def read_all(reader: Reader, good: pathlib.Path, files: Sequence[pathlib.Path]) -> list[Outcome]:
    """Reads files one by one in a process of its own, in another one after each crash or hang.

    Args:
      reader: a function at the top level of a module that can be imported.
      good: a file whose content counts as right; it has to be readable.
      files: what is read.

    Raises:
      RuntimeError: if the good file cannot be read.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(files):
        with _Process(reader, good) as process:
            for file in files[len(outcomes) :]:
                outcome = process.read(file)
                outcomes.append(outcome)
                if outcome.kind in ("crash", "hang"):
                    break
    return outcomes


class _Process:
    """One process that reads; its answers come through a pipe that nothing else writes to."""

    def __init__(self, reader: Reader, good: pathlib.Path) -> None:
        self._answers, write_end = os.pipe()
        path = os.pathsep.join([str(_TESTS.parent), str(_TESTS), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "robustness.guard",
                reader.__module__,
                reader.__qualname__,
                str(write_end),
                str(MEMORY_BYTES),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[write_end],
            env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"},
            text=True,
        )
        os.close(write_end)
        self._buffer = b""
        self._send(good)
        answer = self._answer(time.monotonic() + 300, lambda: False)
        if answer is None or answer[0] != "good":
            self._end()
            raise RuntimeError(f"the undamaged file {good} cannot be read: {answer}")

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, file: pathlib.Path) -> Outcome:
        used = self._seconds()
        self._send(file)
        answer = self._answer(time.monotonic() + _CLOCK_FACTOR * SECONDS, lambda: self._seconds() - used > SECONDS)
        if answer is not None:
            return Outcome(file, *answer)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(0.5)
            return Outcome(file, "crash", signal.Signals(-code).name if code < 0 else f"exit code {code}")
        return Outcome(file, "hang", f"no answer after {self._seconds() - used:.1f} s of processor time")

    def _send(self, file: pathlib.Path) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the missing answer says
            self._process.stdin.write(json.dumps(str(file)) + "\n")
            self._process.stdin.flush()

    def _answer(self, deadline: float, is_over: Callable[[], bool]) -> tuple[Any, str] | None:
        """Kind and detail; None if the process ended or the time is over."""
        while b"\n" not in self._buffer:
            if not select.select([self._answers], [], [], 0.2)[0]:
                if is_over() or time.monotonic() > deadline:
                    return None
                continue
            data = os.read(self._answers, 1 << 16)
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        kind, detail = json.loads(line)
        return kind, detail

    def _seconds(self) -> float:
        """Processor time of the process so far."""
        try:
            fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._answers)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def fingerprint(value: Any) -> str:
    """A digest of everything in a value: types and shapes of arrays, their bytes, fields, keys and their order."""
    digest = hashlib.sha256()
    _add(digest.update, value)
    return digest.hexdigest()


def _add(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, Mapping):
        update(b"{%d" % len(value))
        for key, item in value.items():
            _add(update, key)
            _add(update, item)
    elif isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        update(b"[%d" % len(items))
        for item in items:
            _add(update, item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        update(type(value).__name__.encode())
        for field in dataclasses.fields(value):
            _add(update, getattr(value, field.name))
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
        update(f"{array.dtype}{array.shape}".encode())
        update(repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes())
    else:
        update(repr(value).encode() + b";")


def _memory(field: str) -> int:
    """Bytes of this process that the system names VmSize, VmRSS or VmHWM."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the system does not say {field}")


def _bounded_read(reader: Reader, file: pathlib.Path, right: str, memory_bytes: int) -> tuple[Kind, str]:
    """Kind and detail of one file."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory begins anew
    before = _memory("VmRSS")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _ADDRESS_FACTOR * memory_bytes, hard))
    kind: Kind
    try:
        kind, detail = "good" if fingerprint(reader(file)) == right else "silent", "other content"
    except MemoryError as error:
        kind, detail = "memory", repr(error)
    except ValueError as error:
        kind, detail = "refused" if file.name in str(error) else "bare", f"{type(error).__name__}: {error}"
    except BaseException as error:
        kind, detail = "bare", f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if (grown := _memory("VmHWM") - before) > memory_bytes:
        kind, detail = "memory", f"{grown / 1e9:.2f} GB more ({kind}: {detail})"
    return kind, detail[:500]


def _serve(module: str, name: str, memory_bytes: int, answers: TextIO) -> None:
    """Reads the first file without bounds, and all others with them."""
    reader: Reader = getattr(importlib.import_module(module), name)
    right: str | None = None
    for line in sys.stdin:
        file = pathlib.Path(json.loads(line))
        if right is None:
            try:
                right, answer = fingerprint(reader(file)), ("good", "")
            except Exception as error:
                answer = "bare", repr(error)
        else:
            answer = _bounded_read(reader, file, right, memory_bytes)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with open(int(sys.argv[3]), "w") as pipe:
        _serve(sys.argv[1], sys.argv[2], int(sys.argv[4]), pipe)

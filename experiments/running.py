"""How every command ends: errors that a user can cause are one message and exit code 1, Ctrl-C is quiet and 130.

Imports nothing that takes long: a command imports it first and calls `quiet_start`, so that Ctrl-C is quiet while the
rest is imported.
"""

import errno
import os
import pathlib
import signal
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from types import FrameType

DEBUG = "--debug"
INTERRUPTED = 130
"""Exit code of what Ctrl-C ended: 128 and the number of the signal, as shells have it."""

_HINTS = {
    "ENOSPC": "free some space, and give the same command again: it goes on from what is whole",
    "EDQUOT": "free some space, and give the same command again: it goes on from what is whole",
    "EFBIG": "the system limits the size of files (ulimit -f)",
    "EROFS": "choose a folder that can be written",
    "EACCES": "choose a file or folder that this user may use",
    "EPERM": "choose a file or folder that this user may use",
    "EMFILE": "the system limits open files (ulimit -n)",
    "ENOMEM": "the system has no memory left",
    "EAGAIN": "the system limits processes and threads (ulimit -u)",
}
_OF_THE_MACHINE = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""How errors of XLA begin that are none of the program."""


def quiet_start() -> None:
    """From now on Ctrl-C ends the process without a word; nothing is lost, as everything is written aside first."""
    signal.signal(signal.SIGINT, _leave)


def run(main: Callable[[], None]) -> None:
    """Runs a command; ``--debug`` among its arguments shows the tracebacks of its errors."""
    debug = DEBUG in sys.argv[1:]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != DEBUG]
    sys.unraisablehook = _unraisable
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        quiet_start()
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
        sys.exit(1)
    except Exception as error:
        told = None if debug else message(error)
        if told is None:
            raise
        sys.exit(f"{pathlib.Path(sys.argv[0]).stem}: {told}")


def described(text: str | None) -> str:
    """A command's description, with the option that all commands have."""
    return f"{text or ''}\n\n{DEBUG} shows the traceback of an error."


def message(error: BaseException) -> str | None:
    """What a user is told about an error; None for those that only a fault of the program explains."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"out of memory: {text}. {_SMALLER}"
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, BrokenExecutor):
        return f"a worker process was killed: the system may be short of memory. Give the same command again ({text})"
    if isinstance(error, zipfile.BadZipFile | zlib.error | EOFError):
        return f"a file is damaged: {text}"
    if isinstance(error, RuntimeError) and text.startswith(_OF_THE_MACHINE):
        first = text.splitlines()[0]
        return f"out of memory: {first}. {_SMALLER}" if text.startswith(_OF_THE_MACHINE[0]) else first
    return text if isinstance(error, (ValueError, *_own_errors())) else None


_SMALLER = "Smaller batches or images, fewer threads or a machine with more memory would do"


def _of_system(error: OSError) -> str:
    """What the operating system refused, the file and what can be done."""
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    text = f"{names}: {error.strerror}" if names and error.strerror else error.strerror or str(error)
    hint = _HINTS.get(errno.errorcode.get(error.errno or 0, ""))
    return text if hint is None else f"{text}; {hint}"


def _own_errors() -> tuple[type[Exception], ...]:
    """Errors of the library that are meant for users, of those modules that the command has imported."""
    places = (("ghn_jax.runs.restarting", "WorkerError"), ("ghn_jax.metatraining.failures", "TooManySkippedError"))
    return tuple(getattr(sys.modules[module], name) for module, name in places if module in sys.modules)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that came where Python cannot raise, as in a callback of a library, counts all the same."""
    if isinstance(raised.exc_value, KeyboardInterrupt):
        _leave(signal.SIGINT, None)
    sys.__unraisablehook__(raised)

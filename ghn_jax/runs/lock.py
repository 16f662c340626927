"""A folder that one process at a time writes into."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import socket
from collections.abc import Generator
from typing import Any

from ghn_jax.files import machine_id

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

LOCK_FILE = "in_use.json"
"""Of a folder that is held: who holds it. A killed process leaves the file, not the lock."""

_LOG = logging.getLogger(__name__)
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Generator[None]:
    """Holds a folder, which is made if needed, while the block runs.

    The lock is one of the operating system, which ends with the process that holds it, however that ends, and which
    network file systems know too. Where a file system has none, the process that the file names decides.

    Raises:
      ValueError: if another process holds it, or this one already does; names process and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _acquire(path)
    try:
        before = _holder(descriptor)
        if before:
            _LOG.warning("%s: %s ended without giving it free; this process takes it over", folder, _name(before))
        me = {"pid": os.getpid(), "host": socket.gethostname(), "machine": machine_id()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever waits for this very file looks again
        os.close(descriptor)


def _acquire(path: pathlib.Path) -> int:
    """Descriptor of the locked file at a path; raises ValueError if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(descriptor):
                raise ValueError(
                    f"{path.parent} is in use by {_name(_holder(descriptor))}: wait until it has ended, end it, or "
                    "choose another folder"
                )
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before removed it meanwhile


def _lock(descriptor: int) -> bool:
    """Whether this process has the lock now."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                if isinstance(error, BlockingIOError):
                    return False
                raise
    return not _lives(_holder(descriptor))


def _lives(holder: dict[str, Any]) -> bool:
    """Whether a holder may still be running: not if its machine is this one and has no such process."""
    if not holder:
        return False
    if holder.get("machine") != machine_id() or os.name != "posix":
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError, KeyError, TypeError, ValueError):
        return True
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    """What the file says about who holds it; {} if it says nothing."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder.get('host')}" if "pid" in holder else "another process"

"""Files and folders that appear whole or not at all, and caches of things that can be made again.

What is written stands beside its target under a hidden name until it is complete and on disk, then takes the name in
one step. A process that is killed at any moment leaves the old or the new content, and at worst a hidden leftover,
which the next write into the same folder removes.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import logging
import os
import pathlib
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Generator
from typing import BinaryIO, TypeVar

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_LEFTOVER = re.compile(r"\..*\.ghn_jax-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}(\.[^.]*)?")
_LEFTOVER_SECONDS = 24 * 3600
"""After so long without a change, what a process of another machine was writing counts as left behind."""

_HEADER = b"ghn_jax cache entry, sha256 "
_ATTEMPTS = 20


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Generator[pathlib.Path]:
    """Writes a file that appears whole or not at all.

    Args:
      path: the file; its folder is made if needed. A link to a file stays a link. A file that stood there is replaced
        when the block has ended well and the new content is on disk; if the block raises, it stays as it is.

    Yields:
      A path beside it, with the same suffix, where the block writes the file.

    Raises:
      ValueError: if `path` is a folder.
    """
    final = _resolved(path)
    if final.is_dir():
        raise ValueError(f"{path} is a folder, where a file is to be written: remove it or choose another name")
    temporary = _beside(final)
    try:
        yield temporary
        flush_file(temporary)
        os.replace(temporary, final)
        _flush_folder(final.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Generator[pathlib.Path]:
    """Writes a folder that appears whole or not at all.

    A folder that stood there is swapped for the new one in one step where the system can do that (Linux, on its own
    file systems). Elsewhere it is renamed first, and `whole_folder` brings it back if the process is killed just then.

    Args:
      path: the folder; the one around it is made if needed. A link to a folder stays a link.

    Yields:
      A new empty folder beside it, which the block fills.

    Raises:
      ValueError: if `path` is a file.
    """
    final = _resolved(path)
    if final.exists() and not final.is_dir():
        raise ValueError(f"{path} is a file, where a folder is to be written: remove it or choose another name")
    temporary = _beside(final)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                flush_file(pathlib.Path(folder, name))
            _flush_folder(pathlib.Path(folder))
        _install(temporary, final)
        _flush_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def whole_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where a folder that `atomic_folder` wrote can be read: call it before reading.

    That is `path` itself, even if there is nothing. If a process was killed while it replaced the folder on a system
    that cannot swap two folders, the old one gets its name back here; where that is not allowed, it is read as it lies.
    """
    final = _resolved(path)
    if final.exists():
        return pathlib.Path(path)
    replaced = _replaced(final)
    try:
        os.rename(replaced, final)
        _LOG.warning("%s: its replacement was interrupted; the folder as it was before is back", path)
    except OSError:
        if replaced.is_dir() and not final.exists():
            return replaced
    return pathlib.Path(path)


def remove_folder(folder: pathlib.Path) -> None:
    """Removes a folder, if there is one; nobody finds a part of it under its name, even if this process is killed."""
    if folder.exists():
        doomed = _beside(folder)
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def flush_file(file: pathlib.Path) -> None:
    """Brings a file's content to the disk, so that a name never stands for less after a loss of power."""
    if not stat.S_ISREG(os.lstat(file).st_mode):
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder(*parts: str) -> pathlib.Path:
    """A folder for things that can be made again; nothing is created.

    It is `GHN_JAX_CACHE` if set, else ``ghn_jax`` in `XDG_CACHE_HOME` if that is an absolute path, else
    ``~/.cache/ghn_jax``; `parts` are folders in it. Empty variables count as not set.
    """
    if own := os.environ.get("GHN_JAX_CACHE"):
        return pathlib.Path(own).expanduser().absolute().joinpath(*parts)
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():
        caches = pathlib.Path.home() / ".cache"
    return caches.joinpath("ghn_jax", *parts)


def cached(
    path: pathlib.Path,
    make: Callable[[], _T],
    write: Callable[[BinaryIO, _T], None],
    read: Callable[[BinaryIO], _T],
) -> _T:
    """The value kept in a cache file, else `make()`, which is then kept.

    The file holds a digest of its content: a damaged one is never read, it is made and written anew. Processes that
    make the same entry at once all end well. Where nothing can be written, the value is returned all the same, and a
    warning is logged.

    Args:
      path: the cache file.
      make: makes the value.
      write: writes it to an open file, from where that file stands.
      read: reads it from there.
    """
    try:
        if path.exists():
            return _read_entry(path, read)
    except (OSError, ValueError, EOFError) as error:
        _LOG.warning("the cache entry %s cannot be used (%s); it is made anew", path, error)
    value = make()
    try:
        with atomic_file(path) as temporary, open(temporary, "w+b") as file:
            file.write(_HEADER + bytes(64) + b"\n")
            write(file, value)
            digest = _digest(file)
            file.seek(len(_HEADER))
            file.write(digest)
    except (OSError, ValueError) as error:
        _LOG.warning("the cache entry %s cannot be written (%s); it will have to be made again", path, error)
    return value


def _read_entry(path: pathlib.Path, read: Callable[[BinaryIO], _T]) -> _T:
    """Raises ValueError for a file that is not as it was written."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        header = file.read(len(_HEADER) + 65)
        if header != _HEADER + _digest(file) + b"\n":
            raise ValueError("it is damaged")
        file.seek(len(header))
        return read(file)


def _digest(file: BinaryIO) -> bytes:
    """Of all that follows the header, as 64 hexadecimal digits."""
    file.seek(len(_HEADER) + 65)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest().encode()


def _resolved(path: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(os.path.realpath(path))


def _replaced(final: pathlib.Path) -> pathlib.Path:
    """Where the old folder is between the two renamings of a system that cannot swap."""
    return final.with_name(f".{final.name}.ghn_jax-replaced")


def _beside(final: pathlib.Path) -> pathlib.Path:
    """A name for what is still being written; clears away what killed processes left in the folder."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final.parent)
    owner = f"{machine_id()}-{os.getpid()}-{secrets.token_hex(4)}"
    return final.with_name(f".{final.stem[:40]}.ghn_jax-{owner}{final.suffix}")


def _remove_leftovers(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            match = _LEFTOVER.fullmatch(entry.name)
            if match and _is_left_behind(pathlib.Path(entry.path), match["machine"], int(match["pid"])):
                _remove(pathlib.Path(entry.path))


def _is_left_behind(path: pathlib.Path, machine: str, pid: int) -> bool:
    """Whether nobody writes it any more: its process is dead, or nothing in it has changed for a day."""
    if machine == machine_id() and os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # it belongs to another user, or is no process number at all
            pass
    newest = max(os.lstat(place).st_mtime for place in (path, *path.rglob("*")))
    return time.time() - newest > _LEFTOVER_SECONDS


@functools.cache
def machine_id() -> str:
    """Eight hexadecimal digits of where process numbers mean the same: one machine, one start of it, one container.

    They stand, with the writing process's number, in the hidden names of what is being written.
    """
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush_folder(folder: pathlib.Path) -> None:
    """Brings the names in a folder to the disk; some file systems cannot, and lose at most the newest change."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _install(new: pathlib.Path, final: pathlib.Path) -> None:
    """Gives a complete folder its name; a folder that had it ends under the name of `new`, or is removed."""
    replaced = _replaced(final)
    for attempt in range(_ATTEMPTS):
        try:
            if not final.exists():
                os.rename(new, final)
            elif not swap_folders(new, final):
                remove_folder(replaced)
                os.rename(final, replaced)
                os.rename(new, final)
            remove_folder(replaced)
            return
        except OSError as error:
            # Another process replaced the folder, or brought the old one back, between two of our steps.
            whole_folder(final)
            between = error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
            if not between or attempt == _ATTEMPTS - 1:
                raise


def swap_folders(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchanges the names of two folders in one step.

    Returns:
      Whether it was done. Nothing is changed where one of them does not exist or the system cannot do it (Linux can,
      on its own file systems).
    """
    rename = _renameat2()
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The system's function of that name, Linux only."""
    try:
        function = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function

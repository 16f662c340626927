"""What a run runs on: versions of the software, recorded in its folder, memory, errors of the operating system."""

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import subprocess
import time
from collections.abc import Generator
from typing import Any

from ghn_jax.files import atomic_file

try:
    import resource
except ImportError:  # not a Unix
    resource = None

VERSIONS_FILE = "versions.json"
_LOG = logging.getLogger(__name__)
_CONTROL_GROUP = pathlib.Path("/sys/fs/cgroup")
_TENSORSTORE_CODE = re.compile(r"os_error_code='(\d+)'")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ghn-jax")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes, and the git commit of this source.

    A package that is imported from a checkout without being installed has only its commit, with ``-dirty`` if files
    were changed since.
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _commit(pathlib.Path(__file__).resolve().parent)
    return found if commit is None else {**found, "commit": commit}


def record_versions(folder: pathlib.Path, first: int) -> list[str]:
    """Adds this process's versions to ``versions.json``, a list with the update from which on they were used.

    Returns:
      What differs from the versions that made the updates before `first`, one sentence each; [] for a new run.
    """
    path = folder / VERSIONS_FILE
    rows = [row for row in _recorded(path) if row["first"] < first]
    now = versions()
    before = rows[-1]["versions"] if rows else now
    names = dict.fromkeys((*before, *now))
    changed = [
        f"{name} was {before.get(name, 'not recorded')}, is {now.get(name, 'not known')}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    with atomic_file(path) as new:
        new.write_text(json.dumps([*rows, {"first": first, "versions": now}], indent=1) + "\n")
    return changed


def _recorded(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of ``versions.json``; none, with a warning, of a damaged one: no run depends on them."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        if all(type(row["first"]) is int and isinstance(row["versions"], dict) for row in rows):
            return rows
        reason = "it is of something else"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = repr(error)
    _LOG.warning("%s is damaged (%s): what the run was made with before is not known any more", path, reason)
    return []


def _commit(folder: pathlib.Path) -> str | None:
    """Commit of the repository that a folder is tracked in; None outside of one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], check=False, cwd=folder, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside some other repository, which does not track it.
    if git("ls-files", "--error-unmatch", pathlib.Path(__file__).name) is None:
        return None
    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if head is None else head + ("-dirty" if changes else "")


@contextlib.contextmanager
def naming_errors(place: pathlib.Path) -> Generator[None]:
    """Errors of the operating system in the block name a file or folder, as those of an open file do not.

    tensorstore raises ValueError and tells the system's error in its text: it becomes OSError.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error
    except ValueError as error:
        code = _TENSORSTORE_CODE.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(place)) from error


class ProcessMemory:
    """Memory of this process on Linux.

    Args:
      every: seconds between measurements: the list of mappings grows to megabytes in a process of many programs.
    """

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._measured, self._found = every, -every, dict[str, int]()

    def __call__(self) -> dict[str, int]:
        """``resident_bytes`` and ``memory_mappings``, as last measured; {} on other systems."""
        now = time.monotonic()
        if now - self._measured >= self._every:
            self._measured, self._found = now, _memory()
        return self._found


def memory_left() -> int | None:
    """Bytes that this process can still get before the system refuses or ends it; None where that is not known.

    The least of what the machine has available, swap included, what the process's control group allows (containers),
    and what its limit of address space does.
    """
    machine = _fields(pathlib.Path("/proc/meminfo"), "MemAvailable:", "SwapFree:")
    own = _fields(pathlib.Path("/proc/self/status"), "VmSize:")
    bounds = [1024 * sum(machine)] if machine else []
    with contextlib.suppress(OSError, ValueError):  # no such control group, or "max"
        limit = int((_CONTROL_GROUP / "memory.max").read_text())
        used = int((_CONTROL_GROUP / "memory.current").read_text())
        bounds.append(limit - used + sum(_fields(_CONTROL_GROUP / "memory.stat", "inactive_file", "active_file")))
    if resource is not None and own:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        bounds += [limit - 1024 * own[0]] if limit != resource.RLIM_INFINITY else []
    return min(bounds, default=None)


def check_memory(reserve: int = 200_000_000) -> None:
    """Raises MemoryError if little is left, before a compiler that cannot be told no ends the process.

    Args:
      reserve: bytes that must be left.
    """
    left = memory_left()
    if left is not None and left < reserve:
        raise MemoryError(
            f"{max(left, 0) / 1e6:.0f} MB are left to this process, at least {reserve / 1e6:.0f} are needed"
        )


def _fields(path: pathlib.Path, *names: str) -> list[int]:
    """Numbers of lines that begin with the names; [] where there is no such file."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []
    return [int(row[1]) for row in rows if row and row[0] in names]


def _memory() -> dict[str, int]:
    process = pathlib.Path("/proc/self")
    try:
        status = (process / "status").read_text()
        mappings = (process / "maps").read_bytes().count(b"\n")
    except OSError:
        return {}
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"resident_bytes": 1024 * int(resident), "memory_mappings": mappings}

"""What a run runs on: versions of the software, recorded in its folder, and errors of the operating system."""

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Generator
from typing import Any

from ghn_jax.files import atomic_file

VERSIONS_FILE = "versions.json"
_LOG = logging.getLogger(__name__)
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

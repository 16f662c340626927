"""The persistent compilation cache: a second start compiles nothing."""

import logging
import os
import pathlib
import zlib

import jax
from jax.experimental.compilation_cache import compilation_cache

from ghn_jax.files import cache_folder

_LOG = logging.getLogger(__name__)

_SETTINGS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
"""Layers are small and quick to compile: JAX's own limits would keep none of them."""

_CHECKED = ".ghn_jax-checked"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> pathlib.Path | None:
    """Keeps every compiled program on disk, however small or quick to compile, for this and later processes.

    One call, at the start of a program or notebook; the library itself never calls it. Calling it again changes
    nothing. Programs that are dropped from memory are read from here, too, when they are needed again.

    Args:
      folder: where they are kept. By default the folder that JAX has been told (``JAX_COMPILATION_CACHE_DIR``, or
        ``jax.config``), else ``xla`` in the package's cache folder: ``GHN_JAX_CACHE``, else ``ghn_jax`` in
        ``XDG_CACHE_HOME`` or ``~/.cache``.

    Returns:
      The folder; None, with a warning logged, if it cannot be made.
    """
    told = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]
    chosen = pathlib.Path(folder or told or cache_folder("xla")).expanduser().absolute()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        _remove_cut_entries(chosen)
    except OSError as error:
        _LOG.warning("compiled programs cannot be kept in %s (%s): every start compiles them again", chosen, error)
        if not chosen.is_dir():
            return None
    settings = {"jax_compilation_cache_dir": str(chosen), **_SETTINGS}
    if any(jax.config.values[name] != value for name, value in settings.items()):
        for name, value in settings.items():
            jax.config.update(name, value)
        # A compilation before this call has fixed JAX's decision on whether and where to keep programs.
        compilation_cache.reset_cache()
    return chosen


def _remove_cut_entries(folder: pathlib.Path) -> None:
    """Removes what processes left incomplete when they were killed: JAX would never read such a file nor replace it.

    Only entries written since the last such check are looked at.
    """
    note = folder / _CHECKED
    since = note.stat().st_mtime_ns if note.exists() else 0
    note.touch()
    until = note.stat().st_mtime_ns
    removed = 0
    for entry in folder.glob("*-cache"):
        try:
            if entry.stat().st_mtime_ns >= since and not _is_whole(entry.read_bytes()):
                entry.unlink()
                removed += 1
        except FileNotFoundError:  # another process has removed it
            continue
    os.utime(note, ns=(until, until))
    if removed:
        _LOG.info("%s: removed %d compiled programs that were not written to their end", folder, removed)


def _is_whole(entry: bytes) -> bool:
    """Whether a compressed program ends where it should; those compressed by zstandard are only seen to be there."""
    if entry.startswith(_ZSTANDARD):
        return True
    try:
        zlib.decompress(entry)
    except zlib.error:
        return False
    return True

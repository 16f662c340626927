"""The persistent compilation cache: a second start compiles nothing."""

import os
import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache


def enable_compilation_cache() -> pathlib.Path:
    """Keeps every compiled program on disk, however small or quick to compile, for this and later processes.

    Layers are small: JAX's own limits would keep none of them. Call it before the first compilation.

    Returns:
      The folder: `JAX_COMPILATION_CACHE_DIR`, or ``ghn_jax/xla`` in the user's cache folder (`XDG_CACHE_HOME`).
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME")
    caches = pathlib.Path(base) if base else pathlib.Path.home() / ".cache"
    folder = pathlib.Path(chosen) if chosen else caches / "ghn_jax" / "xla"
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # A compilation before this call would have fixed JAX's decision not to use a cache.
    compilation_cache.reset_cache()
    return folder

"""Settings of a whole process, made once by a command line."""

import os
import pathlib

import jax
from jax.experimental import multihost_utils

from ghn_jax.metatraining.config import RunConfig


def use_compilation_cache(folder: str) -> None:
    """Keeps every compiled program in a folder, unless there is none or JAX_COMPILATION_CACHE_DIR chose another."""
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def set_up(run: RunConfig) -> None:
    """Compilation cache, and the other processes of the run if it is distributed."""
    use_compilation_cache(run.compilation_cache)
    if run.distributed:
        jax.distributed.initialize(run.coordinator, run.num_processes, run.process_id)
        # Processes on CPU must meet within 30 s at their first collective: now, while none of them lags behind.
        multihost_utils.sync_global_devices("ghn_jax")

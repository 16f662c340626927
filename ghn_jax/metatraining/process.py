"""Settings of a whole process, made once by a command line."""

import jax
from jax.experimental import multihost_utils

from ghn_jax.metatraining.config import RunConfig
from ghn_jax.networks import enable_compilation_cache


def set_up(run: RunConfig) -> None:
    """Compilation cache, and the other processes of the run if it is distributed."""
    if run.compilation_cache != "":
        enable_compilation_cache(run.compilation_cache)
    if run.distributed:
        jax.distributed.initialize(run.coordinator, run.num_processes, run.process_id)
        # Processes on CPU must meet within 30 s at their first collective: now, while none of them lags behind.
        multihost_utils.sync_global_devices("ghn_jax")

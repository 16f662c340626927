"""What a command does before it trains: it reads its options and sets up its process."""

import argparse
import os
import pathlib
from collections.abc import Sequence

import jax
import tyro
from jax.experimental import multihost_utils

from ghn_jax.metatraining.config import PRESETS, RunConfig, TrainConfig, imagenet_scale


def parse_config(arguments: Sequence[str] | None, description: str) -> TrainConfig:
    """The configuration that the arguments ask for: those of ``--preset`` (ghn2), changed by the other options.

    ``--dataset=imagenet2012`` also changes the defaults to those of the paper for ImageNet.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="ghn2", choices=list(PRESETS))
    first.add_argument("--dataset", default="")
    known, _ = first.parse_known_args(arguments)
    default = PRESETS[known.preset]
    if known.dataset.startswith("imagenet2012"):
        default = imagenet_scale(default)
    return tyro.cli(
        TrainConfig,
        args=arguments,
        default=default,
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def use_compilation_cache(folder: str) -> None:
    """Keeps every compiled program in a folder, unless there is none or JAX_COMPILATION_CACHE_DIR chose another.

    Changes `jax.config` of the process: for commands, not for libraries.
    """
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

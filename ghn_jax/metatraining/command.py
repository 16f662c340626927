"""What a command does before it trains: it reads its options and sets up its process."""

import argparse
import dataclasses
from collections.abc import Sequence

import jax
import tyro
from jax.experimental import multihost_utils

from ghn_jax.hypernet.protocols import DECODERS, ENCODERS
from ghn_jax.metatraining.config import RunConfig, TrainConfig
from ghn_jax.metatraining.presets import PRESETS, imagenet_scale
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.networks.program_cache import shared_programs
from ghn_jax.runs.cores import divide_cores

_CHOICES = (
    f"--encoder={{{','.join(ENCODERS)}}} and --decoder={{{','.join(DECODERS)}}} choose the parts of the hypernetwork; "
    "the options of those chosen are listed below."
)


def parse_config(arguments: Sequence[str] | None, description: str) -> TrainConfig:
    """The configuration that the arguments ask for: those of ``--preset`` (ghn2), changed by the other options.

    ``--dataset=imagenet2012`` also changes the defaults to those of the paper for ImageNet; ``--encoder`` and
    ``--decoder`` choose another kind than the preset's, whose options then take the place of those of the preset's.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="ghn2", choices=list(PRESETS))
    first.add_argument("--dataset", default="")
    kinds = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    kinds.add_argument("--encoder", choices=list(ENCODERS))
    kinds.add_argument("--decoder", choices=list(DECODERS))
    kinds.add_argument("--num-classes", "--num_classes", nargs="?", default=None, const="")
    known, _ = first.parse_known_args(arguments)
    chosen, rest = kinds.parse_known_args(arguments)
    if chosen.num_classes is not None:
        kinds.error("--num-classes has no effect: the number of classes is that of the images; leave it out")
    default = PRESETS[known.preset]
    if known.dataset.startswith("imagenet2012"):
        default = imagenet_scale(default)
    ghn = default.ghn
    if chosen.encoder not in (None, ghn.encoder.kind):
        ghn = ghn.replace(encoder=ENCODERS[chosen.encoder]())
    if chosen.decoder not in (None, ghn.decoder.kind):
        ghn = ghn.replace(decoder=DECODERS[chosen.decoder]())
    return tyro.cli(
        TrainConfig,
        args=rest,
        default=dataclasses.replace(default, ghn=ghn),
        description=f"{description}\n\n{_CHOICES}",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def set_up(run: RunConfig) -> None:
    """Compilation cache, compiled layers held, cores, and the other processes of the run if it is distributed.

    Raises:
      ValueError: if the processes of a distributed run do not find each other.
    """
    if run.compilation_cache != "":
        enable_compilation_cache(run.compilation_cache)
    if run.held_layers is not None:
        programs = shared_programs()
        programs.bound = dataclasses.replace(programs.bound, programs=run.held_layers)
    divide_cores(run.threads)
    if run.distributed:
        try:
            jax.distributed.initialize(run.coordinator, run.num_processes, run.process_id)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed: {error}. Outside of a cluster that JAX knows, every process needs --coordinator, "
                "--num-processes and --process-id"
            ) from error
        # Processes on CPU must meet within 30 s at their first collective: now, while none of them lags behind.
        multihost_utils.sync_global_devices("ghn_jax")

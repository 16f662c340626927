"""The command line of a training run: a preset, and every field of the configuration as an option."""

import argparse
from collections.abc import Sequence

import tyro

from ghn_jax.metatraining.config import PRESETS, TrainConfig, imagenet_scale


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

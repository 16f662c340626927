"""The command line of a training run: a preset, and every field of the configuration as an option."""

import argparse
import dataclasses
from collections.abc import Sequence

import tyro

from ghn_jax.hypernet.protocols import DECODERS, ENCODERS
from ghn_jax.metatraining.config import PRESETS, TrainConfig, imagenet_scale

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
    known, _ = first.parse_known_args(arguments)
    chosen, rest = kinds.parse_known_args(arguments)
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

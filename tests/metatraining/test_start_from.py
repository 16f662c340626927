"""Runs that begin with the weights of another hypernetwork, of any family."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, save_file
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.metatraining.config import PRESETS, RunConfig
from ghn_jax.metatraining.loop import initialise

SMALL = GHNConfig(max_shape=(4, 4, 3, 3), hid=8)
FAMILIES = {
    "ghn2": SMALL,
    "mlp": SMALL.replace(encoder=MLPEncoderConfig()),
    "ghn3": SMALL.replace(encoder=GraphormerConfig(layers=1, heads=2), decoder=CentredDecoderConfig()),
    "low rank": SMALL.replace(decoder=LowRankDecoderConfig(rank=2, width=64)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_weights_are_those_of_the_start(family: str, tmp_path: pathlib.Path) -> None:
    config, rng = FAMILIES[family], np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    save_file(tmp_path / "ghn.npz", config, variables)
    run = dataclasses.replace(PRESETS["demo"], ghn=config, run=RunConfig(start_from=str(tmp_path / "ghn.npz")))
    ghn, params = initialise(run)
    assert ghn.config == config
    jax.tree.map(np.testing.assert_array_equal, {"params": params}, variables)
    with pytest.raises(ValueError, match=r"--start-from '.*ghn.npz' is another .*: hid is 8, wanted 16$"):
        initialise(dataclasses.replace(run, ghn=config.replace(hid=16)))

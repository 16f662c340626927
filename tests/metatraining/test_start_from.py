"""Runs that begin with the weights of another hypernetwork, of any family."""

import dataclasses
import logging
import pathlib
from typing import Any

import chex
import jax
import numpy as np
import pytest
from flax import traverse_util
from network_args import small_args

from ghn_jax.deepnets import network_graph
from ghn_jax.hypernet import GHN, GHNConfig, PretrainedGHN, init_ghn, predict_params, save_file, with_classes
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.encoders.node_features import channel_table
from ghn_jax.metatraining.config import RunConfig
from ghn_jax.metatraining.presets import PRESETS
from ghn_jax.metatraining.starting import initialise

SMALL = GHNConfig(max_shape=(4, 4, 3, 3), hid=8)
FAMILIES = {
    "ghn2": SMALL,
    "mlp": SMALL.replace(encoder=MLPEncoderConfig()),
    "ghn3": SMALL.replace(encoder=GraphormerConfig(layers=1, heads=2), decoder=CentredDecoderConfig()),
    "low rank": SMALL.replace(decoder=LowRankDecoderConfig(rank=2, width=64)),
}

CASES = [("ghn2", 5), ("ghn2", 16), ("mlp", 100), ("ghn3", 5), ("low rank", 16)]


def flat(params: Any) -> dict[tuple[str, ...], Any]:
    """Leaves by their paths."""
    return dict(traverse_util.flatten_dict(params))


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


@pytest.mark.parametrize(("family", "classes"), CASES)
def test_other_classes_keep_all_but_what_decodes_classifiers(
    family: str, classes: int, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = FAMILIES[family]
    variables = init_ghn(GHN(config), jax.random.key(1))
    save_file(tmp_path / "ghn.npz", config, variables)
    new = config.replace(num_classes=classes)
    run = dataclasses.replace(PRESETS["demo"], ghn=new, run=RunConfig(start_from=str(tmp_path / "ghn.npz")))
    with caplog.at_level(logging.INFO):
        ghn, params = initialise(run)
    assert f"is for 10 classes, not {classes}: weights that depend on their number begin anew" in caplog.text
    assert ghn.config == new
    there, here, fresh = (
        flat(tree) for tree in (variables["params"], params, init_ghn(ghn, jax.random.key(2))["params"])
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(here, fresh)
    decoded = {path for path in here if path[-2] in ("class_layer_predictor", "bias_class")}
    assert len(decoded) == (0 if family == "low rank" else 4)
    for path in here.keys() - decoded:
        if path[-1] == "embed_channel":
            # sizes that both tasks list, and the row of no shape; `classes` was not listed before, unless it is 16
            old, more = there[path], getattr(config.encoder, "more_channels", ())
            for size in (1, 3, 8, 16, 96, 112, 8192, *more):
                row, before = (channel_table(k, more)[size] for k in (classes, 10))
                np.testing.assert_array_equal(here[path][row], old[before], str(size))
            np.testing.assert_array_equal(here[path][-1], old[-1])
        else:
            np.testing.assert_array_equal(here[path], there[path], str(path))


def test_layers_of_another_task_are_predicted_as_before() -> None:
    """The baseline without messages decodes each node alone: only classifiers may differ."""
    config = FAMILIES["mlp"]
    old = PretrainedGHN(GHN(config), init_ghn(GHN(config), jax.random.key(1)))
    args = small_args((("conv_3x3", 1), ("conv_1x1", 0)))
    new = with_classes(old, 5, jax.random.key(2))
    before, now = (
        predict_params(g.ghn, g.variables, [network_graph(args.replace(num_classes=g.config.num_classes))])[0]
        for g in (old, new)
    )
    assert before.keys() == now.keys()
    changed = {path for path in now if now[path].shape != before[path].shape}
    assert {now[path].shape[-1] for path in changed} == {5}
    for path in now.keys() - changed:
        np.testing.assert_array_equal(now[path], before[path], str(path))
    assert with_classes(old, 10, jax.random.key(2)) is old

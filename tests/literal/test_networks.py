"""Logits of target networks equal those of the literal float64 form, parameters from the literal hypernetwork."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from literal.formula import GHN2, weights
from literal.ghn import LiteralGHN
from literal.networks import LiteralNetwork
from network_args import small_args

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.operations import OPS
from ghn_jax.deepnets.sampler import sample_architecture
from ghn_jax.networks import TargetNetwork

TOLERANCE = 2e-5
SIDE = 16
LAYOUT = {"HWIO": (2, 3, 1, 0), "OHWI": (0, 2, 3, 1)}


def assert_equal_logits(args: NetworkArgs, name: str) -> None:
    graph = network_graph(args, name)
    params = LiteralGHN(GHN2, weights(GHN2)).predict(graph)
    images = np.sin(np.arange(4 * 3 * SIDE * SIDE) ** 1.1).reshape(4, 3, SIDE, SIDE)
    expected = LiteralNetwork(args, params).logits(images)
    tree = {}
    for spec in graph.params:
        value = params[spec.path]
        if spec.axes == "IO":
            value = value[:, :, 0, 0].T
        elif spec.axes in LAYOUT:
            value = value.transpose(LAYOUT[spec.axes])
        assert value.shape == spec.shape
        tree[spec.path] = jnp.asarray(value, jnp.float32)
    inputs = jnp.asarray(images.transpose(0, 2, 3, 1), jnp.float32)
    found = TargetNetwork(args).apply({"params": unflatten_dict(tree)}, inputs)
    assert np.isfinite(expected).all()
    assert np.abs(np.asarray(found) - expected).max() <= TOLERANCE * np.abs(expected).max(), name


@pytest.mark.parametrize("op", [op for op in OPS if op != "none"])
def test_each_op(op: str):
    """The op at stride 1 and, in the second cell, 2; beside a convolution and a zero step."""
    steps = ((op, 0), ("conv_3x3", 1), ("none", 0), ("none", 1), (op, 1), ("avg_pool_3x3", 2))
    args = small_args(steps, (2, 3, 4), n_cells=3, C=8, num_classes=10, image_size=SIDE, C_mult=2)
    assert_equal_logits(args, op)


@pytest.mark.parametrize(
    "changes",
    [
        {"stem_type": 1},
        {"stem_pool": True, "ks": 5},
        {"norm": None, "fc_layers": 2, "fc_dim": 20},
        {"glob_avg": False, "preproc": False, "C_mult": 1},
        {"preproc": False, "C_mult": 1, "stem_type": 1},
    ],
    ids=str,
)
def test_stems_heads_and_preprocessing(changes: dict):
    steps = (("conv_3x3", 0), ("skip_connect", 1))
    args = small_args(steps, (2,), n_cells=4, C=8, num_classes=10, image_size=SIDE)
    assert_equal_logits(args.replace(**changes), str(changes))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_sampled_architecture(index: int):
    args = sample_architecture("train", index).args
    assert args is not None
    changes = {"C": 16, "n_cells": min(args.n_cells, 5), "image_size": SIDE, "num_classes": 10}
    assert_equal_logits(args.replace(**changes), f"train/{index}")

"""Logits of DeepNets-1M networks, ViT and DARTS against the release's, weights predicted by the fixtures' GHNs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from parity_data import HAS_PARITY, checkpoint, fixture_args, fixture_images, fixture_outputs, needs_parity

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.predefined import DARTS, VIT
from ghn_jax.hypernet import load_ghn, predict
from ghn_jax.networks import TargetNetwork, network_plan
from ghn_jax.networks.runner import Runner

TOLERANCE = 1e-3
QUICK = ("val/2", "test/23", "bnfree/6", "predefined/ViT")


def arguments(name: str) -> NetworkArgs:
    """Arguments of a fixture architecture."""
    split, index = name.split("/")
    if split == "predefined":
        return {"ViT": VIT, "DARTS": DARTS}[index]
    index, _, classes = index.partition("@")
    if classes:
        return NetworkArgs.from_json(fixture_args()[f"{split}/{index}"], num_classes=int(classes))
    if split == "test_imagenet":
        return NetworkArgs.from_json(fixture_args()[f"test/{index}"], num_classes=1000, image_size=224)
    args = NetworkArgs.from_json(fixture_args()[name])
    return args.replace(C=4 * args.C) if split == "wide" else args


def cases():
    """(architecture, GHN) of all logits but the zoo's, of GHNs with a file; those that take long are slow tests."""
    if not HAS_PARITY:
        return []
    pairs = [name.rsplit("/", 2)[:2] for name in fixture_outputs() if name.endswith("/logits")]
    return [
        pytest.param(*pair, marks=() if pair[0] in QUICK and pair[1] in ("ghn1", "ghn2_tiny") else pytest.mark.slow)
        for pair in pairs
        if not pair[0].startswith(("torchvision/", "imagenet/")) and pair[1] not in ("ghn3_t", "ghn3_s")
    ]


def images_for(args: NetworkArgs) -> jax.Array:
    """The first 16 images, or the first 4 enlarged."""
    images = jnp.asarray(fixture_images()[0])
    if args.image_size == 32:
        return images[:16]
    return jax.image.resize(images[:4], (4, args.image_size, args.image_size, 3), "bilinear")


@functools.cache
def ghn(name: str):
    return load_ghn(checkpoint(name))


@functools.cache
def runner() -> Runner:
    return Runner()


@needs_parity
@pytest.mark.parametrize(("name", "ghn_name"), cases())
def test_logits_equal_the_releases(name, ghn_name):
    args = arguments(name)
    params: Any = flatten_dict(predict(network_graph(args, name=name), ghn(ghn_name))["params"])
    logits = runner().forward(network_plan(args), params, images_for(args))
    expected = fixture_outputs()[f"{name}/{ghn_name}/logits"]
    assert logits.shape == expected.shape
    # bnfree/5 with ghn1_tiny's weights has no finite logits, in the release neither.
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(logits), finite)
    assert finite.all() or (name, ghn_name) == ("bnfree/5", "ghn1_tiny")
    difference = np.abs(logits - expected)[finite].max(initial=0)
    assert difference <= TOLERANCE * np.abs(expected)[finite].max(initial=0)


@needs_parity
def test_predicted_tree_fits_the_module():
    args = arguments("bnfree/6")
    variables = predict(network_graph(args, name="bnfree/6"), ghn("ghn2_tiny"))
    logits = TargetNetwork(args).apply(variables, images_for(args))
    expected = fixture_outputs()["bnfree/6/ghn2_tiny/logits"]
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()

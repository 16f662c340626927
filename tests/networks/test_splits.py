"""Random networks of every split: the runner and the whole module agree in value and gradient; the largest run.

They are compared in float64. In float32 gradients of a few networks differ by up to 6e-3, because rounding flips a ReLU
or a maximum: no error of either way, and a tolerance for it would hide one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.networks import Runner, TargetNetwork, network_plan

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 32, 32, 3)), jnp.float32)
LABELS = jnp.arange(8) % 10
SPLITS = ("train", "val", "test", "wide", "deep", "dense", "bnfree", "search")
# Measured: 1e-15 to 1e-13, and 2e-8 for the logits of deep/3, which amplifies rounding most.
TOLERANCE = 1e-6


def cases():
    """Twenty networks of every split; the first of some is quick."""
    quick = {("train", 0), ("bnfree", 0)}
    return [
        pytest.param(split, index, marks=() if (split, index) in quick else pytest.mark.slow)
        for split in SPLITS
        for index in range(20)
    ]


@pytest.fixture(scope="module")
def runner():
    return Runner()


def loss_logits_gradients(network, params, images):
    """By automatic differentiation of the whole module, one operation after the other: compiling takes too long."""

    def loss(params):
        logits: Any = network.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), logits

    (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return value, logits, flatten_dict(gradients)


def distance(one, other):
    """Norm of the difference, relative to the first's norm, over all leaves; scaled so that squares are finite."""
    flat, against = (np.concatenate([np.ravel(tree[path]) for path in one]) for tree in (one, other))
    largest = np.abs(flat).max()
    return np.linalg.norm((flat - against) / largest) / np.linalg.norm(flat / largest)


def finite_start(network, key, images):
    """Random parameters, halved until the loss is finite: a network without BN (bnfree/2) may explode with them."""
    params: Any = network.init(key, images)["params"]
    while not np.isfinite(network.apply({"params": params}, images)).all():
        params = jax.tree.map(lambda leaf: leaf / 2, params)
    return params


@pytest.mark.parametrize(("split", "index"), cases())
def test_both_ways_agree(runner, split, index):
    args = sample_args(split, index)[0].replace(C=16 if split == "wide" else 8, fc_dim=16)
    with jax.enable_x64(True):
        images = IMAGES.astype(jnp.float64)
        network = TargetNetwork(args)
        params = finite_start(network, jax.random.key(index), images)
        value, logits, gradients = loss_logits_gradients(network, params, images)
        flat: Any = flatten_dict(params)
        plan = network_plan(args)
        ours = runner.loss_and_grads(plan, flat, images, LABELS, train=False, dtype=jnp.float64)
        assert ours[1].dtype == jnp.float64
        assert np.isfinite(value)
        np.testing.assert_allclose(ours[0], value, rtol=TOLERANCE)
        np.testing.assert_allclose(ours[1], logits, atol=TOLERANCE * float(jnp.abs(logits).max()))
        assert ours[2].keys() == gradients.keys()
        assert distance(gradients, ours[2]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_the_largest_of_fifty_networks_runs(runner, split):
    """Most steps of ``dense``, else most cells; of equal ones most layer calls. At full width."""

    def size(args):
        return args.genotype.steps if split == "dense" else args.n_cells, len(network_plan(args).calls)

    args = max((sample_args(split, index)[0] for index in range(50)), key=size)
    params: Any = flatten_dict(
        jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, 0.05),
            jax.eval_shape(TargetNetwork(args).init, jax.random.key(0), IMAGES)["params"],
        )
    )
    loss, _, gradients = runner.loss_and_grads(network_plan(args), params, IMAGES, LABELS, rng=jax.random.key(0))
    assert np.isfinite(float(loss))
    assert gradients.keys() == params.keys()

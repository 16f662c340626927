"""Plans and `TargetNetwork`: dead ops, parameter paths, ordinary training, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import assume, given, settings
from network_args import network_args, small_args

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.networks import TargetNetwork, network_plan
from ghn_jax.networks.layers import Norm
from ghn_jax.networks.target import drop_path
from ghn_jax.networks.transformer import HEADS, Attention

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 32, 32, 3)), jnp.float32)
CONVOLUTION = small_args((("conv_1x1", 1), ("skip_connect", 0)), n_cells=2, C_mult=1)


def logits_of(network, variables) -> jax.Array:
    return network.apply(variables, IMAGES)


def shapes(args, **fields) -> Any:
    images = jax.ShapeDtypeStruct((2, args.image_size, args.image_size, 3), jnp.float32)
    return jax.eval_shape(TargetNetwork(args, **fields).init, jax.random.key(0), images)


@settings(max_examples=25, deadline=None)
@given(network_args())
def test_paths_and_shapes_are_those_of_the_graph(args):
    """Or both refuse the arguments; heads are no business of a graph."""
    assume(not args.is_transformer or args.C % HEADS == 0)
    try:
        wanted = {spec.path: spec.shape for spec in network_graph(args).params}
    except ValueError:
        with pytest.raises(ValueError, match="last cell outputs nothing"):
            shapes(args)
        return
    leaves: dict[Any, Any] = flatten_dict(shapes(args)["params"])
    found = {path: leaf.shape for path, leaf in leaves.items()}
    assert found == wanted


def test_dead_ops_are_not_in_the_plan():
    normal = (("conv_1x1", 0), ("none", 1), ("conv_3x3", 1), ("none", 2))
    genotype = Genotype(normal, (3,), normal, (3,))
    plan = network_plan(NetworkArgs(genotype=genotype, n_cells=1, C=8))
    prefixes = {call.prefix for call in plan.calls}
    assert ("cells_0", "ops_2") in prefixes
    assert ("cells_0", "ops_0") not in prefixes
    assert ("cells_0", "preprocess0") not in prefixes


def test_zero_steps_count_in_a_concatenation():
    normal = (("conv_1x1", 0), ("none", 1), ("none", 0), ("none", 1))
    genotype = Genotype(normal, (2, 3), normal, (2, 3))
    args = NetworkArgs(genotype=genotype, n_cells=1, C=8)
    variables: Any = TargetNetwork(args).init(jax.random.key(0), IMAGES)
    assert variables["params"]["classifier_0"]["kernel"].shape == (16, 10)


def test_equal_arguments_share_a_plan():
    assert network_plan(CONVOLUTION) is network_plan(CONVOLUTION.replace(C=8))
    assert network_plan(CONVOLUTION) is not network_plan(CONVOLUTION, 0.9)


def test_trains_with_running_statistics_and_an_auxiliary_head():
    network = TargetNetwork(CONVOLUTION, momentum=0.9, drop_path=0.1, auxiliary=True)
    variables = network.init(jax.random.key(0), IMAGES)
    labels = jnp.arange(8) % 10
    optimiser = optax.adam(3e-2)

    def loss(params, stats, key):
        (logits, extra), changed = network.apply(
            {"params": params, "batch_stats": stats},
            IMAGES,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return (cross_entropy(logits, labels) + 0.4 * cross_entropy(extra, labels)).mean(), changed["batch_stats"]

    @jax.jit
    def step(params, stats, state, key):
        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, stats, key)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), stats, state, value

    params, stats = variables["params"], variables["batch_stats"]
    state, losses = optimiser.init(params), []
    for index in range(60):
        params, stats, state, value = step(params, stats, state, jax.random.key(index))
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0], losses
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])
    logits: Any = network.apply({"params": params, "batch_stats": stats}, IMAGES)
    one: Any = network.apply({"params": params, "batch_stats": stats}, IMAGES[:1])
    np.testing.assert_allclose(logits[:1], one, atol=1e-4)


def test_drop_path_keeps_the_mean():
    x = jnp.ones((4000, 1, 1, 1))
    out = drop_path(x, 0.25, jax.random.key(0))
    assert set(np.unique(out).round(4)) == {0, np.float32(4 / 3).round(4)}
    assert abs(float(out.mean()) - 1) < 0.05


def test_cpu_formulations_agree_with_the_plain_ones():
    variables = TargetNetwork(CONVOLUTION).init(jax.random.key(0), IMAGES)
    plain = logits_of(TargetNetwork(CONVOLUTION), variables)
    np.testing.assert_allclose(logits_of(TargetNetwork(CONVOLUTION, platform="cpu"), variables), plain, atol=1e-4)


def test_layers_are_equal_by_their_fields():
    assert network_plan(CONVOLUTION).calls[1].layer == network_plan(CONVOLUTION.replace(n_cells=1)).calls[1].layer
    assert Norm() != Norm(0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network_plan(small_args((("none", 0), ("none", 1)))), "last cell outputs nothing"),
        (
            lambda: network_plan(
                small_args((("conv_1x1", 0), ("skip_connect", 1)), stem_type=0, n_cells=4, preproc=False)
            ),
            "C_mult must be 1",
        ),
        (lambda: Attention().init(jax.random.key(0), jnp.zeros((1, 2, 2, 12))), "multiple of 8 heads"),
        (
            lambda: shapes(small_args((("conv_1x1", 1), ("none", 0)), n_cells=3, stem_pool=True), auxiliary=True),
            "at least 5 x 5",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

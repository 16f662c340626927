"""Plans and `TargetNetwork`: dead ops, parameter paths, ordinary training, errors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from network_args import network_args, small_args

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.networks import Runner, TargetNetwork, network_plan
from ghn_jax.networks.plan import IMAGES as IMAGE_ID
from ghn_jax.networks.program_cache import Programs
from ghn_jax.networks.recipe_layer import DropPath, Norm

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 32, 32, 3)), jnp.float32)
TRANSFORMER = small_args((("msa", 1), ("skip_connect", 0)), preproc=False, C_mult=1, n_cells=2)
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
    optimiser = optax.adam(1e-2)

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
    for index in range(100):
        params, stats, state, value = step(params, stats, state, jax.random.key(index))
        losses.append(float(value))
    assert np.mean(losses[-10:]) < 0.5 * losses[0], losses  # one loss alone is noisy: drop-path drops whole branches
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])
    logits: Any = network.apply({"params": params, "batch_stats": stats}, IMAGES)
    one: Any = network.apply({"params": params, "batch_stats": stats}, IMAGES[:1])
    np.testing.assert_allclose(logits[:1], one, atol=1e-4)


def test_drop_path_keeps_the_mean():
    x = jnp.ones((4000, 1, 1, 1))
    out: Any = DropPath(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
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
            "cells_0 ops_1 skip_connect cannot turn 8 channels into 16; use preproc or C_mult = 1",
        ),
        (lambda: network_plan(TRANSFORMER.replace(C=12)), r"cells_0 ops_0 msa needs a width.* multiple of 8 heads"),
        (
            lambda: shapes(small_args((("conv_1x1", 1), ("none", 0)), n_cells=3, stem_pool=True), auxiliary=True),
            "at least 5 x 5",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def run_plan(plan, params, images) -> dict[int, Any]:
    """All values of a plan in training, each layer called by itself."""
    values: dict[int, Any] = {IMAGE_ID: images}
    for number, call in enumerate(plan.calls):
        own = {
            path[len(call.prefix) :]: leaf
            for path, leaf in flatten_dict(params).items()
            if path[: len(call.prefix)] == call.prefix
        }
        rngs = {"dropout": jax.random.key(number)} if call.layer.random else {}
        variables = {"params": unflatten_dict(own)}
        values[call.output] = call.layer.apply(variables, *(values[i] for i in call.inputs), train=True, rngs=rngs)
    return values


def every_third(key, p=0.5, shape=()):
    """Stands in for random masks: two of three are kept, whatever the key."""
    del key, p
    return jnp.arange(np.prod(shape)).reshape(shape) % 3 > 0


BOTH_HEADS = CONVOLUTION.replace(C=4, fc_layers=2, fc_dim=8, image_size=16, preproc=False)
SMALL = IMAGES[:, :16, :16]


def test_drop_path_and_auxiliary_head_are_calls_of_a_plan(monkeypatch):
    """The network as a whole and its plan, layer by layer: logits, auxiliary logits and gradients."""
    monkeypatch.setattr(jax.random, "bernoulli", every_third)
    network = TargetNetwork(BOTH_HEADS, drop_path=0.25, auxiliary=True)
    params: Any = jax.jit(TargetNetwork(BOTH_HEADS, auxiliary=True).init)(jax.random.key(0), SMALL)["params"]
    plan = network_plan(BOTH_HEADS, drop_path=0.25, auxiliary=True)

    def whole(params):
        return network.apply({"params": params}, SMALL, train=True, rngs={"dropout": jax.random.key(0)})

    def by_layers(params):
        assert plan.auxiliary is not None
        values = run_plan(plan, params, SMALL)
        return values[plan.output], values[plan.auxiliary]

    def loss(run, params):
        outputs = run(params)
        return jnp.sin(outputs[0]).sum() + 0.4 * jnp.cos(outputs[1]).sum(), outputs

    (ours, of_ours), (theirs, of_theirs) = (
        jax.jit(jax.grad(functools.partial(loss, run), has_aux=True))(params) for run in (by_layers, whole)
    )
    for outputs in zip(of_ours, of_theirs, strict=True):
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * scale), ours, theirs)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(theirs["auxiliary_head"]["classifier"]))
    kept: Any = TargetNetwork(BOTH_HEADS, auxiliary=True).apply(
        {"params": params}, SMALL, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert not np.allclose(of_theirs[0], kept[0], atol=1e-3)


def test_a_drop_path_follows_each_op_but_identities():
    calls = network_plan(BOTH_HEADS, drop_path=0.25).calls
    branches = [call for call in calls if call.branch]
    drops = [call for call in calls if call.kind == "drop_path"]
    assert [call.inputs for call in drops] == [(call.output,) for call in branches]
    for call in drops:
        assert isinstance(call.layer, DropPath)
        assert call.layer.random
        assert call.layer.rate == 0.25
    read = {value for call in calls if call not in drops for value in call.inputs}
    assert read.isdisjoint(call.output for call in branches)
    assert all(call.kind != "drop_path" for call in network_plan(BOTH_HEADS).calls)


def test_drop_path_does_nothing_outside_training():
    variables: Any = TargetNetwork(BOTH_HEADS).init(jax.random.key(0), SMALL)
    plain = TargetNetwork(BOTH_HEADS).apply(variables, SMALL)
    dropping = TargetNetwork(BOTH_HEADS, drop_path=0.9).apply(variables, SMALL)
    np.testing.assert_array_equal(plain, dropping)


def test_the_runner_takes_a_plan_with_drop_path(monkeypatch):
    monkeypatch.setattr(jax.random, "bernoulli", every_third)
    variables: Any = TargetNetwork(BOTH_HEADS).init(jax.random.key(0), SMALL)
    plan = network_plan(BOTH_HEADS, drop_path=0.25)
    params: Any = flatten_dict(variables["params"])
    logits = Runner(Programs()).forward(plan, params, SMALL, rng=jax.random.key(0), train=True)
    network = TargetNetwork(BOTH_HEADS, drop_path=0.25)
    whole: Any = network.apply(variables, SMALL, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "drop_path", "options", "weight"),
    [
        ({"fc_layers": 1}, 0.0, {}, 0.4),
        ({"fc_layers": 1}, 0.0, {"auxiliary_weight": 1.5, "label_smoothing": 0.1}, 1.5),
        ({}, 0.25, {}, 0.4),
    ],
    ids=["default", "weighted", "drop_path"],
)
def test_the_runner_trains_a_plan_with_an_auxiliary_head(monkeypatch, changes, drop_path, options, weight):
    """Loss, logits and gradients of the network as one module; every third mask entry drops."""
    monkeypatch.setattr(jax.random, "bernoulli", every_third)
    args = BOTH_HEADS.replace(**changes)
    network = TargetNetwork(args, drop_path=drop_path, auxiliary=True)
    params: Any = jax.jit(TargetNetwork(args, auxiliary=True).init)(jax.random.key(0), SMALL)["params"]
    labels = jnp.arange(len(SMALL)) % 10
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), options.get("label_smoothing", 0.0))

    def whole(params):
        outputs: Any = network.apply({"params": params}, SMALL, train=True, rngs={"dropout": jax.random.key(0)})
        logits, auxiliary = (optax.softmax_cross_entropy(logits, targets).mean() for logits in outputs)
        return logits + weight * auxiliary, outputs[0]

    (loss, logits), gradients = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    plan = network_plan(args, drop_path=drop_path, auxiliary=True)
    flat: Any = flatten_dict(params)
    # Programs of its own: those that runners share must not hold these masks.
    found = Runner(Programs()).loss_and_grads(plan, flat, SMALL, labels, rng=jax.random.key(0), **options)
    np.testing.assert_allclose(found[0], loss, rtol=1e-5)
    np.testing.assert_allclose(found[1], logits, rtol=1e-4, atol=1e-4)
    wanted: Any = flatten_dict(gradients)
    assert found[2].keys() == wanted.keys()
    scale = max(float(jnp.abs(leaf).max()) for leaf in wanted.values())
    for path, gradient in wanted.items():
        np.testing.assert_allclose(found[2][path], gradient, atol=1e-4 * scale, err_msg="/".join(path))
    assert float(jnp.abs(found[2]["auxiliary_head", "classifier", "kernel"]).max()) > 1e-3 * scale


def test_an_auxiliary_head_needs_a_cell_that_is_used():
    args = small_args((("none", 0), ("conv_1x1", 0)), n_cells=4, preproc=False, C_mult=1)
    with pytest.raises(ValueError, match="auxiliary head reads cell 2, which does not reach the output"):
        network_plan(args, auxiliary=True)

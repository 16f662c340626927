"""The layer-by-layer runner against the same network as one module, and what it compiles."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from network_args import small_args

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs
from ghn_jax.networks import Runner, TargetNetwork, network_plan
from ghn_jax.networks.program_cache import Programs
from ghn_jax.networks.schedule import schedule

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
LABELS = jnp.array([0, 3, 9, 3])
MIXED = NetworkArgs(
    genotype=Genotype(
        normal=(("sep_conv_3x3", 0), ("dil_conv_3x3", 1), ("conv_3x3", 2), ("cse", 1)),
        normal_concat=(2, 3),
        reduce=(("skip_connect", 0), ("max_pool_3x3", 1), ("none", 2), ("conv_7x1_1x7", 1)),
        reduce_concat=(2, 3),
    ),
    n_cells=2,
    C=8,
    stem_type=1,
)
TRANSFORMER = small_args((("msa", 1), ("skip_connect", 0)), preproc=False, C_mult=1, n_cells=2)
DROPOUT = small_args((("conv_1x1", 1), ("none", 0)), stem_pool=True, fc_layers=2, glob_avg=False, norm=None)


def initial(args) -> Any:
    """Parameters of a network with norms and biases away from their neutral values."""
    params = TargetNetwork(args).init(jax.random.key(1), IMAGES)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def reference(args, params, label_smoothing=0.0):
    """Loss, logits and gradients by automatic differentiation of the whole module."""

    def loss(params):
        logits: Any = TargetNetwork(args).apply({"params": params}, IMAGES)
        targets = optax.smooth_labels(jax.nn.one_hot(LABELS, 10), label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean(), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, logits, flatten_dict(gradients)


def assert_equal_gradients(ours, theirs, tolerance=1e-4):
    """Within `tolerance` of the whole gradient's norm."""
    assert ours.keys() == theirs.keys()
    scale = np.sqrt(sum(float(jnp.vdot(x, x)) for x in theirs.values()))
    for path, gradient in theirs.items():
        assert np.linalg.norm(ours[path] - gradient) <= tolerance * scale, path


@pytest.fixture(scope="module")
def runner():
    return Runner(Programs())


@pytest.mark.parametrize("args", [MIXED, TRANSFORMER, DROPOUT], ids=["mixed", "transformer", "plain"])
def test_both_ways_agree(runner, args):
    params = initial(args)
    loss, logits, gradients = reference(args, params, 0.1)
    flat = flatten_dict(params)
    plan = network_plan(args)
    ours = runner.loss_and_grads(plan, flat, IMAGES, LABELS, label_smoothing=0.1, train=False)
    np.testing.assert_allclose(ours[0], loss, rtol=1e-5)
    np.testing.assert_allclose(ours[1], logits, atol=1e-4 * float(jnp.abs(logits).max()))
    assert_equal_gradients(ours[2], gradients)
    np.testing.assert_allclose(runner.forward(plan, flat, IMAGES), ours[1], atol=1e-4)


def test_second_pass_compiles_nothing_and_threads_agree(runner):
    plans = [network_plan(args) for args in (MIXED, TRANSFORMER)]
    params: list[Any] = [flatten_dict(initial(args)) for args in (MIXED, TRANSFORMER)]
    runner.warm(plans, IMAGES.shape, train=False, threads=2)
    before = runner.report()

    def run(plan, params):
        return runner.loss_and_grads(plan, params, IMAGES, LABELS, train=False)

    one = [run(*pair) for pair in zip(plans, params, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(run, plans, params))
    after = runner.report()
    assert after.compiled == before.compiled == after.held
    assert after.requests > before.requests
    assert after.seconds == before.seconds > 0
    for a, b in zip(one, two, strict=True):
        assert_equal_gradients(a[2], b[2], 1e-6)


def test_programs_are_shared_between_networks():
    """A deeper network of the same cells needs no further programs."""
    shallow = small_args((("conv_1x1", 1), ("none", 0)), n_cells=6)
    runner = Runner(Programs())
    told: list[tuple[int, int]] = []
    for _ in range(2):
        runner.warm([network_plan(shallow)], IMAGES.shape, backward=False, tell=lambda *counts: told.append(counts))
    count = runner.report().compiled
    assert told == [(done, count) for done in range(count)]
    deeper = shallow.replace(n_cells=7)
    runner.warm([network_plan(deeper)], IMAGES.shape, backward=False)
    assert runner.report().compiled == count


def test_one_compilation_for_threads_that_ask_at_once():
    runner = Runner(Programs())
    plan = network_plan(DROPOUT)
    threads = [
        threading.Thread(target=runner.warm, args=([plan], IMAGES.shape), kwargs={"backward": False}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shape = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
    assert runner.report().compiled == len({step.key for step in schedule(plan, shape, False, True, None)})


def test_dropout_only_in_training(runner):
    plan = network_plan(DROPOUT)
    params: Any = flatten_dict(initial(DROPOUT))
    calm = runner.forward(plan, params, IMAGES)
    np.testing.assert_array_equal(calm, runner.forward(plan, params, IMAGES))
    first, second = (runner.forward(plan, params, IMAGES, train=True, rng=jax.random.key(i)) for i in (0, 1))
    assert not np.allclose(first, second)
    again = runner.loss_and_grads(plan, params, IMAGES, LABELS, rng=jax.random.key(0))[1]
    np.testing.assert_allclose(again, first, rtol=1e-5, atol=1e-5)


def test_bfloat16(runner):
    params = flatten_dict(initial(TRANSFORMER))
    plan = network_plan(TRANSFORMER)
    exact = runner.loss_and_grads(plan, params, IMAGES, LABELS, train=False)
    rough = runner.loss_and_grads(plan, params, IMAGES, LABELS, train=False, dtype=jnp.bfloat16)
    np.testing.assert_allclose(rough[1], exact[1], atol=0.05 * float(jnp.abs(exact[1]).max()))
    assert all(gradient.dtype == jnp.float32 for gradient in rough[2].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rng": None}, "has dropout"),
        ({"dtype": jnp.float16, "train": False}, "float32, bfloat16 or float64"),
        ({"dtype": jnp.float64, "train": False}, "jax_enable_x64"),
    ],
)
def test_errors(runner, options, message):
    plan = network_plan(DROPOUT)
    with pytest.raises(ValueError, match=message):
        runner.loss_and_grads(plan, {}, IMAGES, LABELS, **options)


def test_missing_parameter_is_named(runner):
    params: Any = flatten_dict(initial(DROPOUT))
    del params[("stem_0", "kernel")]
    with pytest.raises(ValueError, match="stem_0/kernel"):
        runner.forward(network_plan(DROPOUT), params, IMAGES)


def test_parameter_of_another_shape_is_named(runner):
    params: Any = flatten_dict(initial(DROPOUT))
    kernel = params[("stem_0", "kernel")]
    params[("stem_0", "kernel")] = kernel[..., :-1]
    with pytest.raises(ValueError, match=re.escape(f"stem_0/kernel has shape {kernel[..., :-1].shape}, the network")):
        runner.forward(network_plan(DROPOUT), params, IMAGES)


def test_runners_share_programs_unless_given_others():
    assert Runner().programs is Runner().programs
    assert Runner(Programs()).programs is not Runner().programs

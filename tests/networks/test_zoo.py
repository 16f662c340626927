"""The model zoo: torchvision's parameter counts, shapes at both image sizes, the modes of norms and dropout."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ghn_jax.networks import zoo

# Parameters of torchvision's models with 1000 classes (GoogLeNet without its auxiliary heads), from its documentation.
WEIGHTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "resnext50_32x4d": 25_028_904,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "alexnet": 61_100_840,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "shufflenet_v2_x1_0": 2_278_604,
    "mnasnet1_0": 4_383_312,
    "googlenet": 6_624_904,
    "convnext_tiny": 28_589_128,
    "vit_b_16": 86_567_656,
}
LONG = pytest.mark.slow
OTHERS = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "vit_b_16")


def flat(tree) -> dict[tuple[str, ...], Any]:
    """Leaves by path."""
    return dict(flatten_dict(tree))


@functools.cache
def abstract(name, size, num_classes, small_images):
    model = zoo.create(name, num_classes, small_images)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def test_names_are_the_documented_ones():
    assert set(zoo.names()) == set(WEIGHTS)


@pytest.mark.parametrize("name", zoo.names())
def test_imagenet_form_has_torchvisions_weights(name):
    logits, variables = abstract(name, 224, 1000, False)
    assert logits.shape == (2, 1000)
    assert logits.dtype == jnp.float32
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == WEIGHTS[name]


@pytest.mark.parametrize("name", zoo.names())
def test_small_form_keeps_paths_and_takes_small_images(name):
    logits, small = abstract(name, 32, 10, True)
    _, large = abstract(name, 224, 1000, False)
    assert logits.shape == (2, 10)
    small, large = flat(small["params"]), flat(large["params"])
    assert small.keys() == large.keys()
    # Only the stem and the classifier (and the position table of the transformer) may differ.
    assert 1 <= sum(small[path].shape != large[path].shape for path in small) <= 4


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "mobilenet_v3_large", "densenet121", "vgg16"])
def test_small_form_keeps_more_resolution(name):
    """At 64 x 64, the small form holds larger feature maps: its last max-pool or convolution sees more pixels."""

    def flops(small_images):
        model = zoo.create(name, 10, small_images)
        images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        jaxpr = jax.make_jaxpr(model.apply)(variables, images)
        return sum(math.prod(var.aval.shape) for eqn in jaxpr.eqns for var in eqn.outvars)

    assert flops(True) > 2 * flops(False)


def test_unknown_model_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown model 'resnet51'; known models: resnet18, resnet34"):
        zoo.create("resnet51")


def test_without_classes():
    with pytest.raises(ValueError, match=r"model 'resnet18' needs at least one class, got num_classes=0"):
        zoo.create("resnet18", num_classes=0)


def test_models_are_hashable_and_equal_by_value():
    assert zoo.create("resnet50", 10) == zoo.create("resnet50", 10)
    assert hash(zoo.create("mobilenet_v3_small")) == hash(zoo.create("mobilenet_v3_small"))
    assert zoo.create("resnet50") != zoo.create("resnet101")


@functools.cache
def small_model(name):
    """Model, variables and images with a shift and a scale that running statistics do not know."""
    model = zoo.create(name, 5, small_images=True)
    images = jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 32, 32, 3)), jnp.float32)
    return model, jax.jit(model.init)(jax.random.key(1), images), images


@pytest.mark.parametrize("name", ["resnet18", pytest.param("shufflenet_v2_x1_0", marks=LONG)])
def test_batch_and_running_statistics(name):
    model, variables, images = small_model(name)
    running = jax.jit(model.apply)(variables, images)
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    batch, updated = train(variables, images)
    assert not np.allclose(running, batch, atol=1e-3)
    # Fresh running statistics are mean 0, variance 1; one batch moves each of them by 1 - momentum.
    before, after = flat(variables["batch_stats"]), flat(updated["batch_stats"])
    assert before.keys() == after.keys()
    assert all(np.abs(after[path] - before[path]).max() > 0 for path in before)
    # Running statistics do not couple images, batch statistics do.
    half = jax.jit(model.apply)(variables, images[:2])
    np.testing.assert_allclose(half, running[:2], rtol=1e-3, atol=1e-4)
    assert not np.allclose(train(variables, images[:2])[0], batch[:2], atol=1e-3)


def test_batch_statistics_need_no_stored_ones():
    """Predicted parameters come without running statistics."""
    model, variables, images = small_model("resnet18")
    alone, _ = model.apply({"params": variables["params"]}, images, train=True, mutable=["batch_stats"])
    both, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(alone, both)


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("mobilenet_v3_small", marks=LONG)])
def test_dropout_is_switched_by_its_own_argument(name):
    model, variables, images = small_model(name)
    apply = jax.jit(model.apply, static_argnames=("train", "dropout"))
    plain = apply(variables, images)
    dropped = [apply(variables, images, dropout=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert not np.array_equal(dropped[0], dropped[2])
    assert not np.array_equal(dropped[0], plain)
    np.testing.assert_array_equal(plain, apply(variables, images))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", *(pytest.param(name, marks=LONG) for name in OTHERS)])
def test_gradients_reach_every_parameter(name):
    model, variables, images = small_model(name)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2)

    gradients = flat(jax.jit(jax.grad(loss))(variables["params"]))
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path

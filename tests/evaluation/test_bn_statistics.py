"""Re-estimated statistics of batch normalisation against a literal float64 computation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from network_args import small_args
from tiny_networks import IMAGE_SIZE, images_and_labels, tiny_batch, tiny_ghn

from ghn_jax.deepnets import network_graph
from ghn_jax.evaluation import reestimate_statistics
from ghn_jax.evaluation.bn_statistics import mean_over_batches
from ghn_jax.evaluation.forward import LayeredNetwork
from ghn_jax.graphs.param_spec import Path
from ghn_jax.hypernet import PretrainedGHN, predict_params
from ghn_jax.initialising import init_like
from ghn_jax.networks import TargetNetwork
from ghn_jax.networks.random_init import he_initialisation
from ghn_jax.networks.runner import Runner
from ghn_jax.networks.zoo.resnet import ResNet

Flat = dict[Path, np.ndarray]
BATCHES = [np.random.default_rng(i).normal(0.3 * i, 1 + i, (16, 8, 8, 3)).astype(np.float32) for i in range(3)]
EPSILON = 1e-5


class Reference:
    """Layers in float64 that note mean and unbiased variance of whatever they normalise."""

    def __init__(self, params: Any) -> None:
        self.params: Flat = {path: np.asarray(leaf, np.float64) for path, leaf in params.items()}
        self.found: Flat = {}

    def norm(self, x: np.ndarray, *path: str) -> np.ndarray:
        self.found[(*path, "mean")] = x.mean((0, 1, 2))
        self.found[(*path, "var")] = x.var((0, 1, 2), ddof=1)
        normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + EPSILON)
        return normal * self.params[(*path, "scale")] + self.params[(*path, "bias")]

    def conv(self, x: np.ndarray, *path: str) -> np.ndarray:
        """Stride 1, "same" padding."""
        kernel = self.params[(*path, "kernel")]
        height, width = kernel.shape[:2]
        padded = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
        moved = [padded[:, i : i + x.shape[1], j : j + x.shape[2]] for i in range(height) for j in range(width)]
        return np.einsum("pbhwi,pio->bhwo", np.stack(moved), kernel.reshape(-1, *kernel.shape[2:]))


def expected(params: Any, forward: Callable[[Reference, np.ndarray], Any]) -> Flat:
    """Means over the batches of what the reference finds in each."""
    founds = []
    for images in BATCHES:
        reference = Reference(params)
        forward(reference, images.astype(np.float64))
        founds.append(reference.found)
    return {path: np.mean([found[path] for found in founds], axis=0) for path in founds[0]}


def flat(tree: Any) -> Flat:
    leaves: dict[Any, Any] = traverse_util.flatten_dict(tree)
    return {path: np.asarray(leaf) for path, leaf in leaves.items()}


def check(found: Any, wanted: Flat) -> None:
    """Statistics by path, or nested as in a collection."""
    leaves = found if "mean" in next(iter(found)) else flat(found)
    assert leaves.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_allclose(leaves[path], leaf, rtol=1e-5, atol=1e-5 * np.abs(leaf).max(), err_msg=str(path))


ARGS = small_args((("conv_3x3", 1), ("skip_connect", 0)), n_cells=1, image_size=IMAGE_SIZE)


def one_cell(reference: Reference, images: np.ndarray) -> None:
    """The network of `ARGS` up to its last statistics."""
    stem = reference.norm(reference.conv(images, "stem_0"), "stem_1")
    projected = [
        reference.norm(reference.conv(np.maximum(stem, 0), "cells_0", name, "op_1"), "cells_0", name, "op_2")
        for name in ("preprocess0", "preprocess1")
    ]
    inner = np.maximum(projected[1], 0)
    reference.norm(reference.conv(inner, "cells_0", "ops_0", "op_1"), "cells_0", "ops_0", "op_2")


def test_a_network_of_cells_layer_by_layer() -> None:
    params = he_initialisation(network_graph(ARGS), jax.random.key(0))
    check(LayeredNetwork(ARGS, params, Runner()).statistics(map(jnp.asarray, BATCHES)), expected(params, one_cell))


@pytest.mark.parametrize("momentum", [0.0, 0.37, 0.999])
def test_a_network_of_cells_in_one_piece(momentum: float) -> None:
    params = he_initialisation(network_graph(ARGS), jax.random.key(0))
    variables = {"params": traverse_util.unflatten_dict(dict(params))}
    network = TargetNetwork(ARGS, momentum=momentum)
    renewed = reestimate_statistics(network, variables, list(map(jnp.asarray, BATCHES)))
    check(renewed["batch_stats"], expected(params, one_cell))
    assert renewed["params"] is variables["params"]


class Model(nn.Module):
    """Layers of flax with momenta of their own and biased variances, one of them in a scan, and dropout."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(6, (3, 3), use_bias=False, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.7, epsilon=EPSILON, name="norm")(x)
        x = nn.Dropout(0.5)(nn.relu(x), deterministic=not train)
        x = nn.Conv(4, (1, 1), use_bias=False, name="second")(x)
        x = nn.BatchNorm(not train, momentum=1.0, epsilon=EPSILON, use_fast_variance=False, name="other")(x)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def two_layers(reference: Reference, images: np.ndarray) -> None:
    x = reference.norm(reference.conv(images, "first"), "norm")
    reference.norm(reference.conv(np.maximum(x, 0), "second"), "other")


def test_any_linen_model() -> None:
    model = Model()
    variables = model.init(jax.random.key(3), jnp.asarray(BATCHES[0]))
    renewed = reestimate_statistics(model, variables, map(jnp.asarray, BATCHES))
    check(renewed["batch_stats"], expected(flat(variables["params"]), two_layers))


class Scanned(nn.Module):
    """Two layers as one stacked leaf."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                x = nn.Conv(3, (1, 1), use_bias=False, name="conv")(x)
                return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=EPSILON, name="norm")(x)), None

        stack = nn.scan(Layer, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=2)
        return stack(name="stack")(x, None)[0].mean((1, 2))


def test_layers_in_a_scan() -> None:
    model = Scanned()
    variables = model.init(jax.random.key(3), jnp.asarray(BATCHES[0]))
    params: dict[Any, Any] = traverse_util.flatten_dict(variables["params"])
    separate = {(*path[:-1], str(i), path[-1]): np.asarray(leaf[i]) for path, leaf in params.items() for i in range(2)}

    def forward(reference: Reference, x: np.ndarray) -> None:
        for i in ("0", "1"):
            x = np.maximum(reference.norm(reference.conv(x, "stack", "conv", i), "stack", "norm", i), 0)

    each = expected(separate, forward)
    wanted = {
        ("stack", "norm", leaf): np.stack([each[("stack", "norm", i, leaf)] for i in ("0", "1")])
        for leaf in ("mean", "var")
    }
    check(reestimate_statistics(model, variables, map(jnp.asarray, BATCHES))["batch_stats"], wanted)


def test_a_model_from_init_like() -> None:
    """All layers get statistics, the first those of its input."""
    model = ResNet((1, 1), num_classes=10, small_images=True, bottleneck=False)
    images = jnp.asarray(BATCHES[1])
    variables = init_like(model, jax.random.key(0), images, PretrainedGHN(*tiny_ghn()))
    renewed = reestimate_statistics(model, variables, [images])
    before, after = (flat(tree["batch_stats"]) for tree in (variables, renewed))
    assert before.keys() == after.keys()
    assert all(not np.array_equal(before[path], after[path]) for path in before)
    first = Reference(flat(variables["params"]))
    first.norm(first.conv(BATCHES[1].astype(np.float64), "conv1"), "bn1")
    for path, leaf in first.found.items():
        np.testing.assert_allclose(after[path], leaf, rtol=1e-5, atol=1e-5 * np.abs(leaf).max())


@pytest.mark.parametrize("number", [0, 1])
def test_both_ways_of_running_a_network_find_the_same(number: int) -> None:
    batch, (images, _) = tiny_batch(), images_and_labels()
    (params,) = predict_params(*tiny_ghn(), batch.graphs[number : number + 1])
    layered = LayeredNetwork(batch.args[number], params, Runner())
    found = layered.statistics([images, 2 * images])
    whole = TargetNetwork(batch.args[number], momentum=0.9)
    variables = {"params": traverse_util.unflatten_dict(dict(params))}
    renewed = reestimate_statistics(whole, variables, [images, 2 * images])
    check(found, flat(renewed["batch_stats"]))
    logits = layered.logits_given(images, found)
    expected_logits: Any = whole.apply(renewed, images)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layered.logits_given(images[:4], found), logits[:4], rtol=1e-4, atol=1e-5)


class Renorm(nn.Module):
    """Keeps statistics in a way of its own."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x - self.variable("batch_stats", "mean", jnp.zeros, (1, 1, 1, 3)).value


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.BatchNorm(use_running_average=True)(x, mask=jnp.ones(x.shape, bool))


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (Model(), [], "at least one batch of images"),
        (TargetNetwork(ARGS), BATCHES[:1], "TargetNetwork keeps no statistics"),
        (nn.Sequential([Renorm()]), BATCHES[:1], "layers_0: the statistics of a Renorm cannot be estimated"),
        (Masked(), BATCHES[:1], "BatchNorm_0: .* with a mask"),
    ],
)
def test_what_cannot_be_estimated_is_refused(model: nn.Module, batches: list, message: str) -> None:
    variables: Any = model.init(jax.random.key(0), jnp.asarray(BATCHES[0]))
    with pytest.raises(ValueError, match=message):
        reestimate_statistics(model, variables, [jnp.asarray(images) for images in batches])


def test_means_are_over_batches() -> None:
    assert mean_over_batches({"x": jnp.full(2, float(i))} for i in range(4))["x"].tolist() == [1.5, 1.5]

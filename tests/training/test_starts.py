"""Starts: shapes, statistics, and what they need."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_args import small_args
from tiny_networks import tiny_batch, tiny_ghn

from ghn_jax.deepnets import network_graph
from ghn_jax.deepnets.recipes import HEADS
from ghn_jax.graphs import Role
from ghn_jax.hypernet import PretrainedGHN, predict_params
from ghn_jax.training import STARTS, Given, start, start_params
from ghn_jax.training.gradinit import learn_scales, scaled
from ghn_jax.training.starts import he

GRAPH = tiny_batch().graphs[0]
GHN = PretrainedGHN(*tiny_ghn())
TRANSFORMER = small_args((("msa", 1), ("skip_connect", 0)), preproc=False, C_mult=1, image_size=32)
KEY = jax.random.key(3)


def quadratic(params: dict) -> tuple[jax.Array, dict]:
    """Half the sum of squares: its gradient is the weights, its second derivative 1."""
    loss = sum(jnp.sum(leaf**2) for leaf in params.values()) / 2
    return jnp.asarray(loss), dict(params)


@pytest.mark.parametrize("name", sorted(STARTS))
def test_every_start_gives_every_tensor(name: str) -> None:
    given = Given(GHN, gradient=quadratic)
    found = start_params(name, GRAPH, KEY, given)
    assert {path: leaf.shape for path, leaf in found.items()} == {spec.path: spec.shape for spec in GRAPH.params}
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in found.values())
    again = start_params(name, GRAPH, KEY, given)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_orthogonal() -> None:
    found = start_params("orthogonal", GRAPH, KEY, Given())
    kernels = [spec for spec in GRAPH.params if spec.role in (Role.KERNEL, Role.CLASSIFIER_KERNEL)]
    assert kernels
    for spec in kernels:
        matrix = np.moveaxis(np.asarray(found[spec.path]), -1, 0).reshape(spec.shape[-1], -1)
        product = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        gain = 2 if spec.role is Role.KERNEL else 1
        np.testing.assert_allclose(product, gain * np.eye(len(product)), atol=1e-5, err_msg=spec.name)


def test_predicted_weights_and_what_is_done_to_them() -> None:
    (expected,) = predict_params(GHN.ghn, GHN.variables, [GRAPH])
    found = start_params("predicted", GRAPH, KEY, Given(GHN))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    noisy = start_params("predicted+noise", GRAPH, KEY, Given(GHN, noise=1e-2))
    changed = {path for path in found if not np.array_equal(noisy[path], found[path])}
    assert changed
    assert all(path[-1] == "kernel" for path in changed)
    assert ("classifier", "kernel") not in changed


def test_a_classifier_for_other_classes_is_random() -> None:
    args = tiny_batch().args[0].replace(num_classes=7)
    graph = network_graph(args)
    found, random = (start_params(name, graph, KEY, Given(GHN)) for name in ("predicted", "he"))
    heads = [spec.path for spec in graph.params if spec.role in (Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS)]
    assert len(heads) == 2
    for path in found:
        assert np.array_equal(found[path], random[path]) == (path in heads), path


def test_mimetic_queries_resemble_keys_and_projections_oppose_values() -> None:
    graph = network_graph(TRANSFORMER.replace(C=64))
    found, random = (start_params(name, graph, KEY, Given()) for name in ("mimetic", "he"))
    (path,) = [path for path in found if path[-2:] == ("to_qkv", "kernel")]
    width = found[path].shape[0]
    queries, keys, values = (part.reshape(width, HEADS, -1) for part in np.split(np.asarray(found[path]), 3, axis=1))
    for head in range(HEADS):
        product = queries[:, head] @ keys[:, head].T
        assert np.trace(product) / np.sqrt(np.square(product).sum()) > 1.0
    out = (*path[:-2], "to_out_0", "kernel")
    product = values.reshape(width, width) @ np.asarray(found[out])
    np.testing.assert_allclose(np.diag(product).mean(), -0.4, atol=0.05)
    off = product[~np.eye(width, dtype=bool)]
    np.testing.assert_allclose(off.std(), 0.4 / math.sqrt(width), rtol=0.1)
    same = [other for other in found if np.array_equal(found[other], random[other])]
    assert set(found) - set(same) == {path, out}


def test_gradinit_makes_a_large_gradient_smaller() -> None:
    params = {path: 10 * leaf for path, leaf in he(GRAPH, KEY, Given()).items()}
    found = learn_scales(GRAPH, params, quadratic)
    for path, leaf in params.items():
        ratio = 0.95**40 if path[-1] == "kernel" else 1.0  # one scale a tensor, for kernels only
        np.testing.assert_allclose(found[path], ratio * leaf, rtol=1e-4, err_msg=str(path))


def test_gradinit_looks_one_update_ahead() -> None:
    """With small gradients the loss after an update counts: of f = -a x it falls when x grows."""
    path = GRAPH.params[0].path
    params = {spec.path: 1e-3 * jnp.ones(spec.shape) for spec in GRAPH.params}

    def linear(weights: dict) -> tuple[jax.Array, dict]:
        slope = {at: jnp.zeros_like(leaf) for at, leaf in weights.items()}
        slope[path] = jnp.full_like(weights[path], -1e-4)
        return -1e-4 * weights[path].sum(), slope

    found = learn_scales(GRAPH, params, linear, steps=5)
    np.testing.assert_allclose(found[path] / params[path], 1.05**5, rtol=1e-5)
    assert scaled({path: params[path]}, {}) == {path: params[path]}


def test_a_start_of_ones_own() -> None:
    try:

        @start("zeros")
        def zeros(graph, key, given):
            return {spec.path: jnp.zeros(spec.shape) for spec in graph.params}

        assert not any(np.any(leaf) for leaf in start_params("zeros", GRAPH, KEY, Given()).values())
        with pytest.raises(ValueError, match="there is a start 'zeros' already"):
            start("zeros")(zeros)
    finally:
        del STARTS["zeros"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "unknown start 'nothing': choose one of he, torch"),
        ("predicted+orth", r"needs a hypernetwork \(--ghn\)"),
        ("gradinit", "looks at training images"),
    ],
)
def test_what_is_missing_is_named(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        start_params(name, GRAPH, KEY, Given())

"""Both rules of random initialisation: distributions, biases, stacked leaves."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from network_args import small_args

from ghn_jax.deepnets import VIT, network_graph
from ghn_jax.graphs import ArchGraph, Role
from ghn_jax.graphs.tracing import trace
from ghn_jax.networks.random_init import RANDOM_INITS, he_initialisation, torch_initialisation

GRAPH = network_graph(small_args((("sep_conv_3x3", 0), ("cse", 1)), n_cells=2, C=64, C_mult=1, fc_layers=2, fc_dim=512))
TRANSFORMER = network_graph(VIT.replace(C=64, n_cells=2))


@pytest.mark.parametrize("graph", [GRAPH, TRANSFORMER])
def test_he_initialisation_has_the_variances_of_the_paper(graph: ArchGraph) -> None:
    params = he_initialisation(graph, jax.random.key(0))
    assert params.keys() == {spec.path for spec in graph.params}
    for spec in graph.params:
        array = np.asarray(params[spec.path])
        assert array.shape == spec.shape
        if spec.rank == 1:
            assert set(array.tolist()) == {float(spec.role is Role.SCALE)}
        elif spec.size > 2000:
            fan_in = math.prod(spec.canonical_shape[1:])
            variance = {Role.KERNEL: 2 / fan_in, Role.CLASSIFIER_KERNEL: 1 / fan_in, Role.POSITION: 0.02**2}[spec.role]
            np.testing.assert_allclose(array.std(), np.sqrt(variance), rtol=0.05)
            assert abs(array.mean()) < 5 * np.sqrt(variance / spec.size)


@pytest.mark.parametrize("graph", [GRAPH, TRANSFORMER])
def test_torch_initialisation_is_uniform_within_the_layers_fan_in(graph: ArchGraph) -> None:
    params = torch_initialisation(graph, jax.random.key(0))
    kernels = {spec.path[:-1]: math.prod(spec.canonical_shape[1:]) for spec in graph.params if spec.rank > 1}
    checked = set()
    for spec in graph.params:
        array = np.asarray(params[spec.path])
        assert array.shape == spec.shape
        if spec.role in (Role.SCALE, Role.NORM_BIAS):
            assert set(array.tolist()) == {float(spec.role is Role.SCALE)}
        elif spec.role is Role.POSITION:
            np.testing.assert_allclose(array.std(), 1, rtol=0.05)
        else:  # a bias has the bound of the weight beside it
            bound = 1 / math.sqrt(kernels[spec.path[:-1]])
            assert np.abs(array).max() <= bound
            if spec.size >= 64:
                assert np.abs(array).max() > 0.9 * bound
                np.testing.assert_allclose(array.std(), bound / math.sqrt(3), rtol=0.2 if spec.size < 2000 else 0.03)
                checked.add(spec.role)
    assert checked >= {Role.KERNEL, Role.BIAS, Role.CLASSIFIER_KERNEL}


def test_the_rules_differ_by_the_square_root_of_six() -> None:
    he, torch = (RANDOM_INITS[name](GRAPH, jax.random.key(1)) for name in ("he", "torch"))
    spec = max((spec for spec in GRAPH.params if spec.role is Role.KERNEL), key=lambda spec: spec.size)
    np.testing.assert_allclose(he[spec.path].std() / torch[spec.path].std(), math.sqrt(6), rtol=0.05)


class Stacked(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                return nn.relu(nn.Conv(64, (3, 3), name="conv")(x)), None

        x = nn.Conv(64, (3, 3), name="stem")(x)
        stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(10, name="head")(stack(name="stack")(x, None)[0].mean((1, 2)))


@pytest.mark.parametrize("name", ["he", "torch"])
def test_stacked_leaves_are_put_together(name: str) -> None:
    model = Stacked()
    graph = trace(model, (8, 8, 3))
    flat = RANDOM_INITS[name](graph, jax.random.key(0))
    own = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    leaves: dict[Any, Any] = traverse_util.flatten_dict(own)
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    assert {path: leaf.shape for path, leaf in flat.items()} == shapes
    kernel = flat[("stack", "conv", "kernel")]
    assert kernel.shape == (3, 3, 3, 64, 64)
    bound = math.sqrt(2 / 576) if name == "he" else 1 / math.sqrt(3 * 576)
    np.testing.assert_allclose(kernel.std((1, 2, 3, 4)), bound, rtol=0.03)
    assert len({float(layer[0, 0, 0, 0]) for layer in kernel}) == 3


def test_a_stack_with_a_hole_is_an_error() -> None:
    graph = trace(Stacked(), (8, 8, 3))
    kept = tuple(spec for spec in graph.params if spec.index != (1,))
    broken = ArchGraph("broken", graph.node_types, graph.node_shapes, graph.edges, kept)
    with pytest.raises(ValueError, match=r"of architecture 'broken': the graph has no tensor for index \(1,\)"):
        he_initialisation(broken, jax.random.key(0))


def test_the_torch_rule_needs_the_weight_of_a_bias() -> None:
    bias = next(spec for spec in GRAPH.params if spec.role is Role.BIAS)
    shapes = GRAPH.node_shapes.copy()
    shapes[bias.node - 1] = 0
    broken = ArchGraph("broken", GRAPH.node_types, shapes, GRAPH.edges, GRAPH.params)
    with pytest.raises(ValueError, match=rf"{bias.name}.*'broken': its node follows no weight"):
        torch_initialisation(broken, jax.random.key(0))

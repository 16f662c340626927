"""GHN-3 and the low-rank decoder equal their literal forms in float64: states, predicted tensors and gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corner_graphs import corner_graphs
from literal.ghn import canonical
from literal.ghn3 import LiteralGHN3
from small_graphs import mixed_graph, random_graph

from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, predict_params, predict_with_vjp, prepare
from ghn_jax.hypernet.checkpoints.release_names import config_to_release, params_to_release, release_entries
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig
from ghn_jax.hypernet.programs import embed_program

TOLERANCE = 1e-5
GHN3 = GHNConfig(
    max_shape=(8, 8, 11, 11),
    num_classes=11,
    hid=8,
    encoder=GraphormerConfig(layers=2, heads=2),
    decoder=CentredDecoderConfig(),
)
CONFIGS = {
    "ghn3": GHN3,
    "without virtual edges, norms and scales": GHN3.replace(
        normalization="none", encoder=GraphormerConfig(layers=3, heads=4, virtual_edges=False, layernorm=False)
    ),
    "low rank": GHN3.replace(max_shape=(16, 16, 11, 11), decoder=LowRankDecoderConfig(rank=3, width=210)),
}


def large_kernels() -> ArchGraph:
    """Kernels larger than the largest slab in both directions and in one, and larger channels."""
    shapes = [(0, 0, 0, 0), (9, 3, 13, 16), (20, 9, 12, 3), (4, 20, 2, 2)]
    specs = [
        ParamSpec((f"layer_{node}",), (shape[2], shape[3], shape[1], shape[0]), "HWIO", Role.KERNEL, node)
        for node, shape in enumerate(shapes)
        if node
    ]
    types = [Primitive.INPUT, *[Primitive.CONV] * 3]
    return ArchGraph.build("large kernels", types, shapes, [(0, 1), (1, 2), (2, 3)], specs)


GRAPHS = [mixed_graph(), mixed_graph("other classes", 9, classes=5), random_graph(3, 13), large_kernels()]


def drawn(config: GHNConfig, seed: int = 0) -> Any:
    """Weights of which none is 0, a bias or a table that the start would hide."""
    variables = init_ghn(GHN(config), jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), variables)


def assert_close(found: Any, expected: Any, tolerance: float, what: Any) -> None:
    error = np.linalg.norm(np.asarray(found, np.float64) - expected)
    assert error <= tolerance * max(float(np.linalg.norm(expected)), 1e-9), (what, error, np.linalg.norm(expected))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind.startswith("without") else kind for kind in CONFIGS]
)
def test_states_and_tensors(kind: str) -> None:
    config, variables = CONFIGS[kind], drawn(CONFIGS[kind])
    ghn = GHN(config)
    state = {name: array.astype(np.float64) for name, array in params_to_release(config, variables).items()}
    literal = LiteralGHN3(config_to_release(config), state)
    corners = [graph for graph in corner_graphs().values() if graph.name != "stacked"]
    prepared = prepare(config, [*GRAPHS[:3], *corners])
    states = prepared.batch.unpad(np.asarray(embed_program(ghn)(variables, prepared.batch)))
    for graph, rows in zip(prepared.graphs, states, strict=True):
        assert_close(rows, np.stack(literal.states(graph)), TOLERANCE, graph.name)
    for graph in GRAPHS:
        if kind == "low rank" and graph.name == "large kernels":
            with pytest.raises(ValueError, match=r"'layer_1' of shape .* needs a product of 208 x 64.* larger width"):
                prepare(config.replace(decoder=LowRankDecoderConfig(rank=3, width=150)), [graph])
        (params,) = predict_params(ghn, variables, [graph])
        expected = literal.predict(graph)
        for spec in graph.params:
            found = canonical(params[spec.path], spec)
            assert_close(found, expected[spec.path], TOLERANCE, (graph.name, spec.name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_gradients(kind: str) -> None:
    """Of a random linear function of all predicted tensors of two graphs of unequal size, for every weight."""
    config, graphs = CONFIGS[kind], [GRAPHS[0], GRAPHS[2]]
    variables = drawn(config)
    networks, vjp = predict_with_vjp(GHN(config), variables, graphs)
    rng = np.random.default_rng(1)
    cotangents = [{path: rng.normal(size=leaf.shape) for path, leaf in network.items()} for network in networks]
    gradient = vjp([{path: jnp.asarray(value, jnp.float32) for path, value in one.items()} for one in cotangents])
    ours = params_to_release(config, gradient)
    release = config_to_release(config)

    def function(state: dict[str, jax.Array]) -> jax.Array:
        literal, total = LiteralGHN3(release, state, jnp), jnp.zeros(())
        for graph, one in zip(graphs, cotangents, strict=True):
            predicted = literal.predict(graph)
            for spec in graph.params:
                weights = canonical(one[spec.path], spec)
                total += (predicted[spec.path] * weights).sum()
        return total

    with jax.enable_x64(True):
        state = {name: jnp.asarray(array, jnp.float64) for name, array in params_to_release(config, variables).items()}
        expected = {name: np.asarray(value) for name, value in jax.jit(jax.grad(function))(state).items()}
    assert expected.keys() == {entry.name for entry in release_entries(config)}
    largest = max(float(np.linalg.norm(value)) for value in expected.values())
    for name, value in expected.items():
        error = np.linalg.norm(ours[name].astype(np.float64) - value)
        assert error <= 1e-4 * np.linalg.norm(value) + 1e-7 * largest, (name, error, np.linalg.norm(value))

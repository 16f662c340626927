from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from naive_ghn import NaiveGHN
from small_graphs import TINY, mixed_graph

from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role
from ghn_jax.hypernet import GHN, grouping, init_ghn, predict_params, predict_with_vjp, prepare, programs
from ghn_jax.hypernet.accumulation import add_gradient
from ghn_jax.hypernet.decoders.mlp import MLPDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.networks.program_cache import count_mappings

ABLATIONS = {
    "ghn2": TINY,
    "ghn1": TINY.replace(normalization="none", encoder=GatedGNNConfig(virtual_edges=False, layernorm=False)),
    "mlp": TINY.replace(encoder=MLPEncoderConfig()),
    "mlp decoder": TINY.replace(decoder=MLPDecoderConfig()),
    "fan out": TINY.replace(normalization="fan_out"),
    "forward only": TINY.replace(encoder=GatedGNNConfig(backward_sweep=False)),
    "two rounds": TINY.replace(encoder=GatedGNNConfig(rounds=2)),
    "no shapes": TINY.replace(encoder=GatedGNNConfig(shape_encoding=False)),
    "short edges": TINY.replace(encoder=GatedGNNConfig(s_max=3)),
}


def relative(actual: object, expected: object) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.linalg.norm(actual - expected) / (np.linalg.norm(expected) + 1e-9))


def random_like(params: dict, seed: int) -> dict:
    generator = np.random.default_rng(seed)
    return {path: jnp.asarray(generator.normal(size=value.shape), jnp.float32) for path, value in params.items()}


@pytest.mark.parametrize("name", ABLATIONS)
def test_values_and_gradients_equal_the_literal_form(name: str) -> None:
    ghn, graph = GHN(ABLATIONS[name]), mixed_graph()
    variables = init_ghn(ghn, jax.random.key(0))
    (params,), vjp = predict_with_vjp(ghn, variables, [graph])
    weights = random_like(params, 1)
    gradient = vjp([weights])
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    expected = NaiveGHN(ghn.config, exact["params"]).predict(graph)
    assert params.keys() == expected.keys()
    for path, value in expected.items():
        assert params[path].shape == value.shape
        assert relative(params[path], value) < 2e-6, path

    def loss(variables: dict) -> float:
        values = NaiveGHN(ghn.config, variables["params"]).predict(graph)
        return sum(float(np.vdot(values[path], np.asarray(weights[path], np.float64))) for path in values)

    assert jax.tree.structure(gradient) == jax.tree.structure(variables)
    generator = np.random.default_rng(2)
    leaves, structure = jax.tree.flatten(exact)
    for place, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
        direction = generator.normal(size=leaf.shape)
        shifted = [
            loss(
                jax.tree.unflatten(structure, [*leaves[:place], leaves[place] + step * direction, *leaves[place + 1 :]])
            )
            for step in (1e-8, -1e-8)
        ]
        slope = (shifted[0] - shifted[1]) / 2e-8
        scale = float(np.linalg.norm(leaf)) + abs(slope)
        assert abs(float(np.vdot(np.asarray(leaf, np.float64), direction)) - slope) < 1e-4 * scale, path


def test_gradient_equals_jax_grad_of_the_literal_form() -> None:
    ghn, graph = GHN(TINY), mixed_graph()
    variables = init_ghn(ghn, jax.random.key(3))
    (params,), vjp = predict_with_vjp(ghn, variables, [graph])
    weights = random_like(params, 4)

    def loss(variables: dict) -> jax.Array:
        values = NaiveGHN(TINY, variables["params"], jnp).predict(graph)
        return sum((jnp.vdot(values[path], weights[path]) for path in values), jnp.zeros(()))

    expected = jax.grad(loss)(variables)
    jax.tree.map(lambda got, want: np.testing.assert_array_less(relative(got, want), 2e-5), vjp([weights]), expected)


def test_groups_decoded_as_a_whole_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ghn, graphs = GHN(TINY), [mixed_graph(), mixed_graph()]
    variables = init_ghn(ghn, jax.random.key(0))
    found = []
    for many in (grouping.MANY_WEIGHTS, 0):
        monkeypatch.setattr(grouping, "MANY_WEIGHTS", many)
        prepared = prepare(ghn.config, graphs)
        predicted, vjp = predict_with_vjp(ghn, variables, prepared)
        found.append((len(prepared.chunks), predicted, vjp([random_like(own, 1) for own in predicted])))
    (cut, *usual), (whole, *ours) = found
    assert whole < cut
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(usual), strict=True):
        assert relative(one, other) < 1e-6


def test_missing_cotangents_count_as_zero() -> None:
    ghn, graph = GHN(TINY), mixed_graph()
    variables = init_ghn(ghn, jax.random.key(0))
    (params,), vjp = predict_with_vjp(ghn, variables, [graph])
    weights = random_like(params, 1)
    some = {path: weights[path] for path in (("wide", "kernel"), ("stem_norm", "bias"))}
    rest = {path: jnp.zeros_like(weights[path]) for path in weights}
    jax.tree.map(np.testing.assert_array_equal, vjp([some]), vjp([{**rest, **some}]))
    with pytest.raises(ValueError, match="cotangents of 1 networks, got 2"):
        vjp([some, some])


def test_classifier_can_be_left_out_and_must_match() -> None:
    ghn = GHN(TINY)
    variables = init_ghn(ghn, jax.random.key(0))
    graph = mixed_graph("seven classes", classes=7)
    with pytest.raises(ValueError, match=r"seven classes.*head/kernel.*leave the classifier out"):
        predict_params(ghn, variables, [graph])
    (params,) = predict_params(ghn, variables, prepare(TINY, [graph], classifier=False))
    assert params.keys() == {spec.path for spec in graph.params if spec.path[0] != "head"}


def stacked_graph(indices: list[tuple[int, ...]]) -> ArchGraph:
    """Two layers in one stacked leaf, whose kernel is split into heads, and a table over 10 tokens."""
    shapes = [(0, 0, 0, 0), (1, 6, 3, 3), (0, 0, 0, 0), (12, 6, 1, 1), (12, 6, 1, 1)]
    types = [Primitive.INPUT, Primitive.POS_ENC, Primitive.SUM, Primitive.CONV, Primitive.CONV]
    specs = [
        ParamSpec(("layers", "query"), (6, 3, 4), "IOO", Role.KERNEL, 3 + place, index)
        for place, index in enumerate(indices)
    ]
    specs.append(ParamSpec(("tokens",), (1, 10, 6), "OHI", Role.POSITION, 1))
    return ArchGraph.build("stacked", types, shapes, [(0, 2), (1, 2), (2, 3), (3, 4)], specs)


def test_stacked_leaves_split_axes_and_token_tables() -> None:
    ghn = GHN(TINY)
    variables = init_ghn(ghn, jax.random.key(0))
    (params,), vjp = predict_with_vjp(ghn, variables, [stacked_graph([(0,), (1,)])])
    query, tokens = params["layers", "query"], params[("tokens",)]
    assert query.shape == (2, 6, 3, 4)
    assert tokens.shape == (1, 10, 6)
    plain = ParamSpec(("plain",), (6, 12), "IO", Role.KERNEL, 4)
    graph = stacked_graph([(0,), (1,)])
    alone = ArchGraph(graph.name, graph.node_types, graph.node_shapes, graph.edges, (plain,))
    (expected,) = predict_params(ghn, variables, [alone])
    np.testing.assert_allclose(query[1].reshape(6, 12), expected[("plain",)], rtol=1e-6)
    np.testing.assert_array_equal(tokens[0, 9], tokens[0, 0])  # a 3 x 3 square, repeated
    gradient = vjp([{("layers", "query"): jnp.ones_like(query)}])
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    with pytest.raises(ValueError, match=r"stacked.*index \(0,\)"):
        predict_params(ghn, variables, [stacked_graph([(1,), (2,)])])


KEPT = ("decode_program", "decode_backward_program", "fit_program", "fit_backward")


@pytest.mark.skipif(count_mappings() is None, reason="this system does not list memory mappings")
def test_programs_beyond_the_bound_give_back_their_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of many widths, one after the other, with all programs held and with three of each sort."""
    ghn = GHN(TINY)
    variables = init_ghn(ghn, jax.random.key(0))
    graphs = [mixed_graph(f"width {width}", width) for width in range(5, 17)]

    def gradients() -> tuple[list, int]:
        """Gradients, and mappings that only the programs held take."""
        found = []
        for graph in graphs:
            params, vjp = predict_with_vjp(ghn, variables, [graph])
            found.append(vjp(params))
            del params, vjp
        held = count_mappings() or 0
        for name in KEPT:
            getattr(programs, name).cache_clear()
        return found, held - (count_mappings() or 0)

    expected, of_all = gradients()
    for name in KEPT:
        monkeypatch.setattr(programs, name, programs.most_recent(3)(getattr(programs, name).__wrapped__))
    found, of_few = gradients()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert of_all > 3 * 2 * len(graphs)
    assert of_few < of_all / 3


def test_a_gradient_is_added_to_the_corner_that_it_fills() -> None:
    weights = {"corner": jnp.ones((4, 6, 5)), "inside": jnp.ones((3, 4)), "unused": jnp.ones(3), "whole": jnp.ones(5)}

    def gradient(weights: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        def value(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
            parts = weights["corner"][:, :2, :3].sum((0, 1)), weights["inside"][1:, 1:].sum(0)
            return jnp.sin(parts[0] * parts[1] * x).sum() + jnp.square(weights["whole"]).sum()

        return jax.grad(value, argnums=(0, 1))(weights, x)

    def plain(total: dict[str, jax.Array], *arguments: Any) -> Any:
        found, rest = gradient(*arguments)
        return jax.tree.map(jnp.add, total, found), rest

    def in_place(total: dict[str, jax.Array], *arguments: Any) -> Any:
        return add_gradient(total, gradient, *arguments)

    total = jax.tree.map(lambda leaf: jnp.arange(float(leaf.size)).reshape(leaf.shape), weights)
    arguments = total, weights, jnp.array([0.1, 0.2, 0.3])
    jax.tree.map(np.testing.assert_array_equal, jax.jit(in_place)(*arguments), jax.jit(plain)(*arguments))
    compiled = [jax.jit(function).lower(*arguments).compile().as_text() for function in (plain, in_place)]
    assert [" pad(" in (text or "") for text in compiled] == [True, False]

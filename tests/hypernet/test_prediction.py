import jax
import jax.numpy as jnp
import naive_ghn
import numpy as np
import pytest
from jax.test_util import check_grads
from small_graphs import TINY, mixed_graph, random_graph

from ghn_jax.graphs.batching import batch_graphs
from ghn_jax.hypernet import GHN, GHNConfig, predict_params, predict_with_vjp, prepare
from ghn_jax.hypernet.initialisation import init_ghn

ABLATIONS = {
    "ghn2": TINY,
    "ghn1": TINY.replace(virtual_edges=False, normalization="none", layernorm=False),
    "mlp": TINY.replace(hypernet="mlp"),
    "mlp decoder": TINY.replace(decoder="mlp"),
    "fan out": TINY.replace(normalization="fan_out"),
    "forward only": TINY.replace(backward_sweep=False),
    "two rounds": TINY.replace(rounds=2),
    "no shapes": TINY.replace(shape_encoding=False),
    "short edges": TINY.replace(s_max=3),
}


def relative(actual: object, expected: object) -> float:
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.linalg.norm(actual - expected) / (np.linalg.norm(expected) + 1e-12))


def loss(params: dict, weights: dict) -> jax.Array:
    return sum((jnp.vdot(value, weights[path]) for path, value in params.items()), jnp.zeros(()))


def random_like(params: dict, seed: int) -> dict:
    generator = np.random.default_rng(seed)
    return {path: jnp.asarray(generator.normal(size=value.shape), jnp.float32) for path, value in params.items()}


@pytest.mark.parametrize("name", ABLATIONS)
def test_values_and_gradients_equal_the_literal_form(name: str) -> None:
    config = ABLATIONS[name]
    ghn, graph = GHN(config), mixed_graph()
    variables = init_ghn(ghn, jax.random.key(0))
    (params,), vjp = predict_with_vjp(ghn, variables, [graph])
    weights = random_like(params, 1)

    def naive_loss(variables: dict) -> tuple[jax.Array, dict]:
        values = naive_ghn.predict(config, variables, graph)
        return loss(values, weights), values

    expected_gradient, expected = jax.jit(jax.grad(naive_loss, has_aux=True))(variables)
    assert params.keys() == expected.keys()
    for path, value in expected.items():
        assert params[path].shape == value.shape
        assert relative(params[path], value) < 2e-6, path
    gradient = vjp([weights])
    assert jax.tree.structure(gradient) == jax.tree.structure(variables)
    for path, value in jax.tree_util.tree_leaves_with_path(expected_gradient):
        got = dict(jax.tree_util.tree_leaves_with_path(gradient))[path]
        assert relative(got, value) < 2e-5, jax.tree_util.keystr(path)

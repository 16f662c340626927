"""Parameters outside the vocabulary are listed with a reason; what cannot be traced is an error."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from ghn_jax.graphs import Primitive
from ghn_jax.graphs.tracing import trace

IMAGE = (8, 8, 3)
Params = dict[str, jax.Array]


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of users broadcast as they like."""
    with jax.numpy_rank_promotion("allow"):
        yield


def tokens(p: Params, x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], 64, 3) @ p["w"]


def layer_scale(p: Params, x: jax.Array) -> jax.Array:
    return tokens(p, x) * p["odd"]


def bias_after_activation(p: Params, x: jax.Array) -> jax.Array:
    return jax.nn.relu(tokens(p, x)) + p["odd"]


def scale_plus_one(p: Params, x: jax.Array) -> jax.Array:
    return jax.nn.standardize(tokens(p, x)) * (1 + p["odd"])


def lookup(p: Params, x: jax.Array) -> jax.Array:
    return tokens(p, x) + p["odd"][jnp.argmax(x.reshape(x.shape[0], -1)[:, :6], axis=-1)][:, None, None]


def attention_bias(p: Params, x: jax.Array) -> jax.Array:
    x = tokens(p, x)
    return jax.nn.softmax(x @ x.swapaxes(1, 2) + jnp.tile(p["odd"], 11)[:64]) @ x


def two_leaves_in_one_kernel(p: Params, x: jax.Array) -> jax.Array:
    return tokens(p, x) @ jnp.concatenate([p["odd"][:, None], p["odd"][:, None] * p["two"][:, None]], axis=1)


def on_parameters_only(p: Params, x: jax.Array) -> jax.Array:
    return tokens(p, x) * (p["odd"] @ p["square"])


def subtracted(p: Params, x: jax.Array) -> jax.Array:
    return tokens(p, x) - p["odd"]


def volume(p: Params, x: jax.Array) -> jax.Array:
    kernel = p["odd"].reshape(6, 1, 1, 1, 1)
    layout = ("NCDHW", "OIDHW", "NCDHW")
    out = lax.conv_general_dilated(x[:, None], kernel, (1, 1, 1), "SAME", dimension_numbers=layout)
    return tokens(p, x) + out.mean()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layer_scale, "layer scale"),
        (bias_after_activation, "no layer of the vocabulary just produced"),
        (scale_plus_one, "reaches the data through add: the layer does not use the leaf itself"),
        (lookup, "embedding table"),
        (attention_bias, "attention scores"),
        (two_leaves_in_one_kernel, "several leaves are joined into one kernel"),
        (on_parameters_only, "layer scale"),
        (subtracted, "subtracted from data"),
        (volume, "a convolution over 3 axes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_leaf_is_kept_with_its_reason(layer: Callable[[Params, jax.Array], jax.Array], reason: str):
    params = {"w": jnp.zeros((3, 6)), "odd": jnp.zeros(6), "unused": jnp.zeros((5, 5)), "head": jnp.zeros((6, 10))}
    if layer is two_leaves_in_one_kernel:
        params.update(two=jnp.zeros(6), head=jnp.zeros((2, 10)))
    if layer is on_parameters_only:
        params.update(square=jnp.zeros((6, 6)))

    def forward(p: Params, x: jax.Array) -> jax.Array:
        return layer(p, x).mean(1) @ p["head"]

    graph = trace(forward, IMAGE, params=params)
    kept = {leaf.path[0]: leaf.reason for leaf in graph.kept}
    assert reason in kept["odd"]
    assert "does not reach the output" in kept["unused"]
    assert {spec.path[0] for spec in graph.params} == params.keys() - kept.keys() == {"w", "head"}
    sizes = {name: leaf.size for name, leaf in params.items()}
    assert graph.kept_share == pytest.approx(sum(sizes[name] for name in kept) / sum(sizes.values()))
    message = rf"{len(kept)} leaves cannot be predicted: .*odd \(6,\): .*{re.escape(reason)}"
    with pytest.raises(ValueError, match=message):
        trace(forward, IMAGE, params=params, strict=True)


def test_gain_of_a_standardised_kernel_is_kept_and_the_kernel_predicted():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        kernel = jax.nn.standardize(p["w"], axis=0) * p["gain"]
        return x.reshape(x.shape[0], -1) @ kernel @ p["head"]

    params = {"w": jnp.zeros((192, 6)), "gain": jnp.zeros(6), "head": jnp.zeros((6, 10))}
    graph = trace(forward, IMAGE, params=params)
    assert [(leaf.name, leaf.reason) for leaf in graph.kept] == [("gain", "modifies w")]
    assert str(graph).endswith("not predicted: 0.49% of the weights\n  gain (6): modifies w")
    assert {spec.name for spec in graph.params} == {"w", "head"}


def test_stack_with_unused_layers_is_kept():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1) @ p["w"][0] @ p["w"][2] @ p["head"]

    graph = trace(forward, IMAGE, params={"w": jnp.zeros((3, 192, 192)), "head": jnp.zeros((192, 10))})
    assert [leaf.reason for leaf in graph.kept] == ["only some of its layers are used"]


def test_choice_at_run_time_is_contracted_without_and_an_error_with_parameters():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        x = lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)
        x = lax.fori_loop(0, jnp.argmax(x[0, 0, 0]), lambda _, y: y * y, x)
        return x.reshape(x.shape[0], -1) @ p["w"]

    params = {"w": jnp.zeros((192, 10))}
    graph = trace(forward, IMAGE, params=params, strict=True)
    assert [Primitive(kind).label for kind in graph.node_types.tolist()] == ["input", "conv"]

    def branching(p: Params, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        return lax.cond(x.sum() > 0, lambda y: y @ p["w"], lambda y: -y @ p["w"], x)

    with pytest.raises(ValueError, match=r"cannot trace parameters w.* through a branch chosen at run time"):
        trace(branching, IMAGE, params=params)

    def looping(p: Params, x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda y: y.sum() > 0, lambda y: y * p["w"].sum(), x)

    with pytest.raises(ValueError, match="cannot trace parameters w through a while loop"):
        trace(looping, IMAGE, params=params)


def test_branch_for_the_platform_is_the_default_one():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        return lax.platform_dependent(x, p["w"], cpu=lambda y, w: (y[:, :, None] * w).sum(1), default=jnp.matmul)

    graph = trace(forward, IMAGE, params={"w": jnp.zeros((192, 10))}, strict=True)
    assert graph.num_classes == 10


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (3, None, "cannot trace a int"),
        (lambda p, x: x, None, "only be traced with `params`"),
        (lambda p, x: p, jnp.zeros(3), "does not depend on the input"),
        (
            lambda p, x: jnp.tanh(x[:, 0, 0] @ p) * jnp.sin(x[:, 1, 1] @ p),
            jnp.zeros((3, 10)),
            r"the output joins nodes 1 \(conv\), 2 \(conv\)",
        ),
    ],
)
def test_untraceable_model(model: Any, params: Any, message: str):
    with pytest.raises(ValueError, match=message):
        trace(model, IMAGE, params=params)

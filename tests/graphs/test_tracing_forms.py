"""Unusual ways of writing the same layers, and corners of JAX that a model may pass through."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_compare import specs_by_path
from jax import lax

from ghn_jax.graphs import ArchGraph, Primitive, Role
from ghn_jax.graphs.tracing import trace

IMAGE = (8, 8, 3)
Params = dict[str, jax.Array]


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of users broadcast as they like."""
    with jax.numpy_rank_promotion("allow"):
        yield


def labels(graph: ArchGraph) -> list[str]:
    return [Primitive(kind).label for kind in graph.node_types.tolist()]


def zeros(**shapes: tuple[int, ...]) -> Params:
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


MEAN, VARIANCE = jnp.full(6, 0.5), jnp.full(6, 2.0)


@pytest.mark.parametrize(
    "norm",
    [
        lambda p, x: (x - MEAN) * lax.rsqrt(VARIANCE + 1e-5) * p["scale"] + p["bias"],
        lambda p, x: (x - MEAN) / jnp.sqrt(VARIANCE + 1e-5) * p["scale"] + p["bias"],
        lambda p, x: p["bias"] + (x - MEAN) * (p["scale"] / jnp.sqrt(VARIANCE + 1e-5)),
        lambda p, x: (x - MEAN) * (p["scale"] * (VARIANCE + 1e-5) ** -0.5) + p["bias"],
        lambda p, x: x * (p["scale"] * lax.rsqrt(VARIANCE)) + (p["bias"] - MEAN * p["scale"] * lax.rsqrt(VARIANCE)),
        lambda p, x: p["scale"] * (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5) + p["bias"],
        lambda p, x: p["scale"] * ((x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)) + p["bias"],
        lambda p, x: (x - x.mean((0, 1, 2))) * (x.var((0, 1, 2)) + 1e-5) ** -0.5 * p["scale"] + p["bias"],
        lambda p, x: (x - x.mean((0, 1, 2))) * (jnp.sqrt(x.var((0, 1, 2))) ** -1 * p["scale"]) + p["bias"],
        lambda p, x: (
            jax.vmap(
                lambda a: (a - lax.pmean(a.mean((0, 1)), "b")) * lax.rsqrt(lax.pmean(jnp.square(a).mean((0, 1)), "b")),
                axis_name="b",
            )(x)
            * p["scale"]
            + p["bias"]
        ),
    ],
)
def test_batch_norm(norm: Callable[[Params, jax.Array], jax.Array]):
    graph = trace(
        lambda p, x: norm(p, x @ p["w"]).mean((1, 2)) @ p["head"],
        IMAGE,
        params=zeros(w=(3, 6), scale=(6,), bias=(6,), head=(6, 10)),
    )
    assert labels(graph) == ["input", "conv", "bn", "glob_avg", "conv"]
    assert not graph.kept
    assert {spec.role for spec in graph.params if spec.node == 2} == {Role.SCALE, Role.NORM_BIAS}


@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (lambda w, x: x @ w[..., ::1], (3, 6), "IO"),
        (lambda w, x: lax.dynamic_slice_in_dim(jnp.tensordot(x, w, axes=[[3], [1]]), 0, 6, axis=3), (6, 3), "OI"),
        (lambda w, x: jax.vmap(jax.vmap(jax.vmap(lambda v: w @ v)))(x), (6, 3), "OI"),
        (lambda w, x: x @ w.reshape(6, 3).T, (2, 3, 3), "OOI"),
        (lambda w, x: x @ jnp.pad(w, ((0, 0), (0, 1))), (3, 6), "IO"),
        (lambda w, x: x @ ((w - w.mean(0)) / jnp.sqrt(w.var(0) + 1e-5)) * 2.0, (3, 6), "IO"),
        (lambda w, x: x @ w[::-1], (3, 6), "IO"),
        (lambda w, x: jnp.concatenate([x @ part for part in lax.split(w, (2, 4), axis=1)], -1), (3, 6), "IO"),
        (lambda w, x: x @ jnp.take(w, jnp.array([5, 4, 3, 2, 1, 0]), axis=1), (3, 6), "IO"),
        (lambda w, x: jnp.einsum("bhwc,cd->bhwd", x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)), (3, 6), "IO"),
        (lambda w, x: jax.vmap(lambda a: lax.conv(a.transpose(2, 0, 1)[None], w, (1, 1), "SAME")[0])(x), (6, 3, 1, 1),
         "OIHW"),
    ],
)  # fmt: skip
def test_linear_layer(layer: Callable[[jax.Array, jax.Array], jax.Array], shape: tuple[int, ...], axes: str):
    graph = trace(
        lambda p, x: flat(layer(p["w"], x)).mean(1, keepdims=True) @ p["head"],
        IMAGE,
        params=zeros(w=shape, head=(1, 10)),
        strict=True,
    )
    assert labels(graph) == ["input", "conv", "conv"]
    assert specs_by_path(graph)["w",].axes == axes
    assert graph.node_shapes[1].tolist() == [6, 3, 1, 1]


def test_kernel_whose_axis_is_split_between_in_and_out_is_kept():
    graph = trace(
        lambda p, x: flat(x) @ p["w"].reshape(192, 6) @ p["head"], IMAGE, params=zeros(w=(1152,), head=(6, 10))
    )
    assert labels(graph) == ["input", "conv", "conv"]
    assert [leaf.reason for leaf in graph.kept] == ["its axes do not map onto the layer's axes"]


@jax.custom_vjp
def layer_with_its_own_gradient(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w)


layer_with_its_own_gradient.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: saved)


@pytest.mark.parametrize(
    "wrapped",
    [
        layer_with_its_own_gradient,
        jax.jit(lambda x, w: x @ w),
        jax.checkpoint(lambda x, w: x @ w),
        lambda x, w: jax.nn.relu(x @ w),
        lambda x, w: lax.optimization_barrier((x @ w, 0))[0],
        lambda x, w: lax.cond(True, lambda: x @ w, lambda: x[:, :6] * 0),
        lambda x, w: lax.switch(1, [lambda: x[:, :6], lambda: x @ w, lambda: x[:, 6:12]]),
        lambda x, w: lax.map(lambda row: row @ w, x),
        lambda x, w: lax.scan(lambda total, row: (total, row @ w), 0.0, x)[1],
    ],
)
def test_layer_inside_a_transformation(wrapped: Callable[[jax.Array, jax.Array], jax.Array]):
    graph = trace(
        lambda p, x: wrapped(flat(x), p["w"]) @ p["head"], IMAGE, params=zeros(w=(192, 6), head=(6, 10)), strict=True
    )
    assert labels(graph) == ["input", "conv", "conv"]


def test_scan_backwards_over_layers_and_what_it_collects():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        x, every = lax.scan(lambda y, w: (jnp.tanh(y @ w), y.mean()), flat(x), p["w"], reverse=True)
        return (x + every.sum()) @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(3, 192, 192), head=(192, 10)), strict=True)
    assert labels(graph) == ["input", "conv", "conv", "conv", "sum", "conv"]
    assert [(spec.index, spec.node) for spec in graph.params if spec.path == ("w",)] == [
        ((0,), 3),
        ((1,), 2),
        ((2,), 1),
    ]


def test_weights_collected_by_a_scan_are_kept():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        _, doubled = lax.scan(lambda total, w: (total, 2 * w), 0.0, p["w"])
        return flat(x) @ doubled[0] @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(2, 192, 6), head=(6, 10)))
    assert [(leaf.name, leaf.reason) for leaf in graph.kept] == [("w", "several leaves are joined into one kernel")]


def test_stack_along_an_inner_axis_is_kept():
    graph = trace(
        lambda p, x: flat(x) @ p["w"][:, 0] @ p["w"][:6, 1, :] @ p["head"], IMAGE,
        params=zeros(w=(192, 2, 6), head=(6, 10)),
    )  # fmt: skip
    assert labels(graph)[0] == "input"
    assert specs_by_path(graph)["head",].role is Role.CLASSIFIER_KERNEL


def test_model_that_reads_constants_as_python_numbers():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for rate in [value.item() for value in jnp.linspace(0, 0.1, 2)]:
                x = nn.Dropout(rate, deterministic=True)(nn.relu(nn.Dense(6)(x)))
            return nn.Dense(10)(x.mean((1, 2)))

    assert labels(trace(Net(), IMAGE, strict=True)) == ["input", *["conv", "bias"] * 2, "glob_avg", "conv", "bias"]


def test_features_instead_of_images():
    graph = trace(lambda p, x: jnp.tanh(x) @ p, (12,), params=jnp.zeros((12, 10)))
    assert labels(graph) == ["input", "conv"]
    assert graph.params[0].path == ()


def test_local_response_norm_and_blur_are_contracted():
    blur = np.full((3, 3, 1, 6), 1 / 9, np.float32)

    def forward(p: Params, x: jax.Array) -> jax.Array:
        x = x @ p["w"]
        squares = lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME")
        x = x / (1 + squares) ** 0.75
        layout = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, jnp.asarray(blur), (2, 2), "SAME", dimension_numbers=layout, feature_group_count=6
        )
        return x.mean((1, 2)) @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(3, 6), head=(6, 10)), strict=True)
    assert labels(graph) == ["input", "conv", "glob_avg", "conv"]


@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_adaptive_pooling_by_constant_matrices(size: int):
    places = [(i * 8 // size, -(-(i + 1) * 8 // size)) for i in range(size)]
    means = np.array([[(a <= j < b) / (b - a) for j in range(8)] for a, b in places], np.float32)

    def forward(p: Params, x: jax.Array) -> jax.Array:
        return flat(jnp.einsum("ph,qw,bhwc->bpqc", means, means, x @ p["w"])) @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(3, 6), head=(6 * size * size, 10)))
    assert labels(graph) == ["input", "conv", "glob_avg", "conv"]


def test_resizing_is_no_pooling():
    def forward(p: Params, x: jax.Array) -> jax.Array:
        return flat(jax.image.resize(x @ p["w"], (x.shape[0], 12, 12, 6), "bilinear")) @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(3, 6), head=(864, 10)))
    assert labels(graph) == ["input", "conv", "conv"]


@pytest.mark.parametrize("shape", [(8, 8, 6), (1, 64, 6), (64, 6), (1, 8, 1, 6)])
def test_position_table(shape: tuple[int, ...]):
    def forward(p: Params, x: jax.Array) -> jax.Array:
        x = x @ p["w"]
        x = x + p["table"] if p["table"].ndim > 3 or len(p["table"]) == 8 else x.reshape(-1, 64, 6) + p["table"]
        return flat(x) @ p["head"]

    graph = trace(forward, IMAGE, params=zeros(w=(3, 6), table=shape, head=(384, 10)), strict=True)
    assert labels(graph) == ["input", "conv", "pos_enc", "sum", "conv"]
    expected: dict[tuple[int, ...], str] = {(8, 8, 6): "HWI", (1, 64, 6): "OHI", (64, 6): "HI", (1, 8, 1, 6): "OHOI"}
    assert specs_by_path(graph)["table",].axes == expected[shape]
    assert graph.node_shapes[2].tolist() == ([1, 6, 8, 8] if shape != (1, 8, 1, 6) else [1, 6, 2, 2])

"""Each layer of the vocabulary, in each way of writing it, becomes the right node with the right spec."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from graph_compare import specs_by_path
from jax import lax

from ghn_jax.graphs import ArchGraph, Primitive, Role
from ghn_jax.graphs.tracing import trace

IMAGE = (8, 8, 3)


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of users broadcast as they like."""
    with jax.numpy_rank_promotion("allow"):
        yield


def traced(
    forward: Callable[[Any, jax.Array], jax.Array], shapes: dict[str, tuple[int, ...]], **kwargs: Any
) -> ArchGraph:
    """Graph of a function of parameters `shapes` and a batch of images (B, 8, 8, 3)."""
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return trace(forward, kwargs.pop("input_shape", IMAGE), params=params, **kwargs)


def labels(graph: ArchGraph) -> list[str]:
    return [Primitive(kind).label for kind in graph.node_types.tolist()]


def spec_of(graph: ArchGraph, *path: str) -> tuple[str, Role, int]:
    spec = specs_by_path(graph)[path]
    return spec.axes, spec.role, spec.node


def conv(x: jax.Array, kernel: jax.Array, **kwargs: Any) -> jax.Array:
    layout: dict[str, Any] = {
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"), "window_strides": (1, 1), "padding": "SAME", **kwargs
    }  # fmt: skip
    return lax.conv_general_dilated(x, kernel, **layout)


def head(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x.mean((1, 2)) @ p["head"]


@pytest.mark.parametrize(
    ("kernel", "kwargs", "label", "shape", "axes"),
    [
        ((3, 5, 3, 6), {}, "conv", (6, 3, 3, 5), "HWIO"),
        ((6, 3, 3, 5), {"dimension_numbers": ("NHWC", "OIHW", "NHWC")}, "conv", (6, 3, 3, 5), "OIHW"),
        ((3, 6, 5, 3), {"dimension_numbers": ("NHWC", "IOWH", "NHWC")}, "conv", (6, 3, 3, 5), "IOWH"),
        ((3, 3, 1, 6), {"feature_group_count": 3}, "sep_conv", (6, 1, 3, 3), "HWIO"),
        ((3, 3, 1, 3), {"feature_group_count": 3, "rhs_dilation": (2, 2)}, "dil_conv", (3, 1, 3, 3), "HWIO"),
        ((3, 3, 1, 3), {"feature_group_count": 3, "rhs_dilation": (2, 1)}, "sep_conv", (3, 1, 3, 3), "HWIO"),
        ((3, 3, 3, 6), {"rhs_dilation": (2, 2)}, "conv", (6, 3, 3, 3), "HWIO"),
        ((2, 2, 3, 6), {"lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))}, "conv", (6, 3, 2, 2), "HWIO"),
    ],
)
def test_convolution(kernel: tuple[int, ...], kwargs: dict[str, Any], label: str, shape: tuple[int, ...], axes: str):
    width = shape[0]
    graph = traced(
        lambda p, x: head(p, conv(x, p["w"], **kwargs) + p["b"]), {"w": kernel, "b": (width,), "head": (width, 10)}
    )
    assert labels(graph) == ["input", label, "bias", "glob_avg", "conv"]
    assert tuple(graph.node_shapes[1]) == shape
    assert spec_of(graph, "w") == (axes, Role.KERNEL, 1)
    assert spec_of(graph, "b") == ("O", Role.BIAS, 2)
    assert spec_of(graph, "head") == ("IO", Role.CLASSIFIER_KERNEL, 4)


def test_convolution_of_images_with_channels_first():
    graph = traced(
        lambda p, x: (conv(x, p["w"], dimension_numbers=("NCHW", "OIHW", "NCHW")) + p["b"]).mean((2, 3)) @ p["head"].T,
        {"w": (6, 3, 3, 3), "b": (6, 1, 1), "head": (10, 6)},
        input_shape=(3, 8, 8),
    )
    assert labels(graph) == ["input", "conv", "bias", "glob_avg", "conv"]
    assert spec_of(graph, "b") == ("OOO", Role.BIAS, 2)
    assert spec_of(graph, "head") == ("OI", Role.CLASSIFIER_KERNEL, 4)


def test_flattened_features_are_one_axis_of_the_linear_layer():
    graph = traced(lambda p, x: x.reshape(x.shape[0], -1) @ p["w"] + p["b"], {"w": (192, 10), "b": (10,)})
    assert labels(graph) == ["input", "conv", "bias"]
    assert spec_of(graph, "w") == ("IO", Role.CLASSIFIER_KERNEL, 1)
    assert spec_of(graph, "b") == ("O", Role.CLASSIFIER_BIAS, 2)
    assert graph.num_classes == 10


@pytest.mark.parametrize(
    ("equation", "shape", "axes", "node_shape"),
    [
        ("bhwc,cd->bhwd", (3, 6), "IO", (6, 3, 1, 1)),
        ("bhwc,dc->bhwd", (6, 3), "OI", (6, 3, 1, 1)),
        ("bhwc,cnd->bhwnd", (3, 2, 6), "IOO", (12, 3, 1, 1)),
        ("bhwc,ncd->bnhwd", (2, 3, 6), "OIO", (12, 3, 1, 1)),
        ("bhwc,hwcd->bd", (8, 8, 3, 6), "IIIO", (6, 192, 1, 1)),
        ("bhwc,cde->bhwde", (3, 1, 6), "IOO", (6, 3, 1, 1)),
    ],
)
def test_linear_layer_by_einsum(equation: str, shape: tuple[int, ...], axes: str, node_shape: tuple[int, ...]):
    graph = traced(
        lambda p, x: jnp.einsum(equation, x, p["w"]).reshape(x.shape[0], -1) @ p["head"],
        {"w": shape, "head": (64 * node_shape[0] if node_shape[1] == 3 else 6, 10)},
    )
    assert labels(graph) == ["input", "conv", "conv"]
    assert spec_of(graph, "w") == (axes, Role.KERNEL, 1)
    assert tuple(graph.node_shapes[1]) == node_shape


def test_linear_layer_per_group_is_grouped():
    graph = traced(
        lambda p, x: (
            jnp.einsum("bhwgc,gcd->bhwgd", x.reshape(*x.shape[:3], 3, 1), p["w"]).mean((1, 2)).reshape(-1, 12)
            @ p["head"]
        ),
        {"w": (3, 1, 4), "head": (12, 10)},
    )
    assert labels(graph) == ["input", "sep_conv", "glob_avg", "conv"]
    assert spec_of(graph, "w") == ("OIO", Role.KERNEL, 1)
    assert tuple(graph.node_shapes[1]) == (12, 1, 1, 1)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_batch_norm(train: bool, fast: bool):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Conv(6, (3, 3), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, use_fast_variance=fast)(x)
            return nn.Dense(10)(nn.relu(x).mean((1, 2)))

    graph = trace(Net(), IMAGE, strict=True)
    assert labels(graph) == ["input", "conv", "bn", "glob_avg", "conv", "bias"]
    assert tuple(graph.node_shapes[2]) == (6, 1, 1, 1)
    assert spec_of(graph, "BatchNorm_0", "scale") == ("O", Role.SCALE, 2)
    assert spec_of(graph, "BatchNorm_0", "bias") == ("O", Role.NORM_BIAS, 2)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.LayerNorm(use_fast_variance=False),
        nn.LayerNorm,
        lambda: nn.GroupNorm(num_groups=2),
        lambda: nn.GroupNorm(num_groups=None, group_size=3),
        nn.RMSNorm,
        nn.InstanceNorm,
        lambda: nn.LayerNorm(use_bias=False),
        lambda: nn.LayerNorm(use_scale=False),
    ],
)
def test_normalisation_within_an_image(norm: Callable[[], nn.Module]):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.gelu(norm()(nn.Conv(6, (3, 3))(x)))
            return nn.Dense(10)(x.mean((1, 2)))

    graph = trace(Net(), IMAGE, strict=True)
    assert labels(graph) == ["input", "conv", "bias", "ln", "glob_avg", "conv", "bias"]
    assert tuple(graph.node_shapes[3]) == (6, 1, 1, 1)
    assert {spec.role for spec in graph.params if spec.node == 3} <= {Role.SCALE, Role.NORM_BIAS}


def test_norm_written_as_one_scale_and_shift():
    def forward(p: Any, x: jax.Array) -> jax.Array:
        x = conv(x, p["w"])
        mean = x.mean((0, 1, 2), keepdims=True)
        scale = p["scale"][None, None, None] / jnp.sqrt(jnp.square(x - mean).mean((0, 1, 2), keepdims=True) + 1e-5)
        return head(p, x * scale + (p["bias"][None, None, None] - mean * scale))

    graph = traced(forward, {"w": (3, 3, 3, 6), "scale": (6,), "bias": (6,), "head": (6, 10)}, strict=True)
    assert labels(graph) == ["input", "conv", "bn", "glob_avg", "conv"]
    assert spec_of(graph, "bias") == ("O", Role.NORM_BIAS, 2)


def test_norm_after_the_mean_over_space():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(10)(nn.LayerNorm()(nn.Conv(6, (3, 3))(x).mean((1, 2))))

    assert labels(trace(Net(), IMAGE, strict=True)) == ["input", "conv", "bias", "glob_avg", "ln", "conv", "bias"]


@pytest.mark.parametrize(
    ("pool", "label", "window"),
    [
        (lambda x: nn.max_pool(x, (3, 2), (2, 2)), "max_pool", (1, 1, 3, 2)),
        (lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"), "max_pool", (1, 1, 3, 3)),
        (lambda x: nn.avg_pool(x, (2, 2), (2, 2)), "avg_pool", (1, 1, 2, 2)),
        (lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False), "avg_pool", (1, 1, 3, 3)),
        (lambda x: nn.avg_pool(x, (8, 8)), "glob_avg", (0, 0, 0, 0)),
        (lambda x: x.sum((1, 2), keepdims=True) / 64, "glob_avg", (0, 0, 0, 0)),
        (lambda x: x.sum(1, keepdims=True).sum(2, keepdims=True) * (1 / 64), "glob_avg", (0, 0, 0, 0)),
        (lambda x: x.reshape(x.shape[0], 64, -1).mean(1), "glob_avg", (0, 0, 0, 0)),
    ],
)
def test_pooling(pool: Callable[[jax.Array], jax.Array], label: str, window: tuple[int, ...]):
    width = pool(jnp.zeros((1, 8, 8, 6))).size
    graph = traced(
        lambda p, x: pool(conv(x, p["w"])).reshape(x.shape[0], -1) @ p["head"], {"w": (3, 3, 3, 6), "head": (width, 10)}
    )
    assert labels(graph) == ["input", "conv", label, "conv"]
    assert tuple(graph.node_shapes[2]) == window


@pytest.mark.parametrize("keepdims", [True, False])
def test_squeeze_and_excitation(keepdims: bool):
    """The mean is a node only if it keeps the spatial axes (docs/method.md, section 2)."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Conv(6, (3, 3), use_bias=False)(x)
            gate = nn.Dense(6)(nn.relu(nn.Dense(2)(x.mean((1, 2), keepdims=keepdims))))
            return nn.Dense(10)((x * nn.sigmoid(gate if keepdims else gate[:, None, None])).mean((1, 2)))

    mean = ["glob_avg"] if keepdims else []
    graph = trace(Net(), IMAGE, strict=True)
    assert labels(graph) == [
        "input", "conv", *mean, "conv", "bias", "conv", "bias", "cse", "glob_avg", "conv", "bias",
    ]  # fmt: skip
    gate = labels(graph).index("cse")
    assert graph.edges[graph.edges[:, 1] == gate, 0].tolist() == [1, gate - 1]


@pytest.mark.parametrize(
    "activation", [nn.relu6, nn.hard_swish, nn.gelu, nn.silu, nn.elu, lambda x: x * jax.nn.softplus(x)]
)
def test_activations_are_contracted(activation: Callable[[jax.Array], jax.Array]):
    graph = traced(lambda p, x: head(p, activation(conv(x, p["w"]))), {"w": (3, 3, 3, 6), "head": (6, 10)})
    assert labels(graph) == ["input", "conv", "glob_avg", "conv"]

"""Random compositions of layers trace to a valid graph that holds the expected nodes and every parameter leaf."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.graphs.tracing import trace

IMAGE = (6, 6, 4)
Layer = tuple[Any, ...]  # kind, then options; branches are tuples of layers

CONVOLUTION = st.tuples(
    st.just("conv"), st.sampled_from([1, 3]), st.booleans(), st.booleans(), st.sampled_from([1, 2])
)  # kernel, grouped, bias, dilation
SIMPLE = st.one_of(
    CONVOLUTION,
    st.tuples(st.just("norm"), st.sampled_from(["batch", "running", "layer", "group", "rms"])),
    st.tuples(st.just("activation"), st.sampled_from(["relu", "hard_swish", "gelu", "silu"])),
    st.tuples(st.just("pool"), st.sampled_from(["max_pool", "avg_pool"]), st.sampled_from([2, 3])),
    st.tuples(st.just("excite"), st.booleans()),
    st.tuples(st.just("attention")),
    st.tuples(st.just("position")),
    st.tuples(st.just("layer_scale")),
    st.tuples(st.just("stack"), st.integers(1, 3)),
)
LAYERS = st.recursive(
    st.lists(SIMPLE, min_size=1, max_size=3).map(tuple),
    lambda inner: st.lists(
        st.one_of(SIMPLE, st.tuples(st.sampled_from(["residual", "concat"]), inner)), min_size=1, max_size=4
    ).map(tuple),
    max_leaves=6,
)


class Net(nn.Module):
    """The layers, a mean over space and a classifier."""

    layers: tuple[Layer, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(_run(self.layers, x).mean((1, 2)))


class Dense(nn.Module):
    """One layer of a stack."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.tanh(nn.Dense(x.shape[-1])(x))


class Position(nn.Module):
    """A position table."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.param("table", nn.initializers.normal(), (1, *x.shape[1:]))


class LayerScale(nn.Module):
    """One factor per channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param("layer_scale", nn.initializers.ones, (1, 1, 1, x.shape[-1]))


def _position(x: jax.Array) -> jax.Array:
    return Position()(x)


def _layer_scale(x: jax.Array) -> jax.Array:
    return LayerScale()(x)


def _run(layers: Sequence[Layer], x: jax.Array) -> jax.Array:
    for kind, *options in layers:
        x = _LAYERS[kind](x, *options)
    return x


def _conv(x: jax.Array, kernel: int, grouped: bool, bias: bool, dilation: int) -> jax.Array:
    width = x.shape[-1]
    groups = width // 2 if grouped else 1
    layer = nn.Conv(width, (kernel, kernel), kernel_dilation=dilation, feature_group_count=groups, use_bias=bias)
    return layer(x)


def _norm(x: jax.Array, kind: str) -> jax.Array:
    norms = {
        "batch": lambda: nn.BatchNorm(use_running_average=False),
        "running": lambda: nn.BatchNorm(use_running_average=True),
        "layer": nn.LayerNorm,
        "group": lambda: nn.GroupNorm(num_groups=2),
        "rms": nn.RMSNorm,
    }
    return norms[kind]()(x)


def _pool(x: jax.Array, kind: str, window: int) -> jax.Array:
    return getattr(nn, kind)(x, (window, window), (1, 1), "SAME")


def _excite(x: jax.Array, keepdims: bool) -> jax.Array:
    gate = nn.Dense(x.shape[-1])(nn.relu(nn.Dense(2)(x.mean((1, 2), keepdims=keepdims))))
    return x * nn.sigmoid(gate if keepdims else gate[:, None, None])


def _attention(x: jax.Array) -> jax.Array:
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return nn.MultiHeadDotProductAttention(2, use_bias=False)(tokens).reshape(x.shape)


def _stack(x: jax.Array, depth: int) -> jax.Array:
    scan = nn.scan(
        lambda module, carry, _: (module(carry), None),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=depth,
    )
    return scan(Dense(), x, None)[0]


_LAYERS: dict[str, Any] = {
    "conv": _conv,
    "norm": _norm,
    "activation": lambda x, name: getattr(nn, name)(x),
    "pool": _pool,
    "excite": _excite,
    "attention": _attention,
    "position": _position,
    "layer_scale": _layer_scale,
    "stack": _stack,
    "residual": lambda x, branch: x + _run(branch, x),
    "concat": lambda x, branch: jnp.concatenate([x, _run(branch, x)], axis=-1),
}


def _expected(layers: Sequence[Layer]) -> list[str]:
    """Labels of the nodes of some layers, in any order."""
    found: list[str] = []
    for kind, *options in layers:
        if kind == "conv":
            _, grouped, bias, dilation = options
            found += [("dil_conv" if dilation > 1 else "sep_conv") if grouped else "conv"] + ["bias"] * bias
        elif kind == "norm":
            found.append("bn" if options[0] in ("batch", "running") else "ln")
        elif kind == "pool":
            found.append(options[0])
        elif kind == "excite":
            found += ["glob_avg"] * options[0] + ["conv", "bias", "conv", "bias", "cse"]
        elif kind == "attention":
            found += ["conv", "conv", "conv", "msa", "conv"]
        elif kind == "position":
            found += ["pos_enc", "sum"]
        elif kind == "stack":
            found += ["conv", "bias"] * options[0]
        elif kind in ("residual", "concat"):
            branch = _expected(options[0])
            found += branch + [{"residual": "sum", "concat": "concat"}[kind]] * bool(branch)
    return found


def _check_leaves(graph: ArchGraph, layers: Sequence[Layer]) -> None:
    """Every leaf is kept or has specs that cover all of it, and only layer scales are kept."""
    variables = jax.eval_shape(Net(tuple(layers)).init, jax.random.key(0), jnp.zeros((1, *IMAGE)))
    leaves: dict[tuple[str, ...], Any] = flatten_dict(variables["params"])
    covered: collections.Counter[tuple[str, ...]] = collections.Counter()
    for spec in graph.params:
        assert leaves[spec.path].shape[len(spec.index) :] == spec.shape
        assert all(place < size for place, size in zip(spec.index, leaves[spec.path].shape, strict=False))
        assert graph.node_shapes[spec.node].any()
        covered[spec.path] += spec.size
    for leaf in graph.kept:
        assert leaf.path[-1] == "layer_scale"
        assert leaf.path not in covered
        covered[leaf.path] += leaf.size
    assert covered == {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    assert len({(spec.path, spec.index) for spec in graph.params}) == len(graph.params)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(LAYERS)
def test_random_composition(layers: tuple[Layer, ...]):
    graph = trace(Net(layers), IMAGE)
    labels = [Primitive(kind).label for kind in graph.node_types.tolist()]
    expected = ["input", *_expected(layers), "glob_avg", "conv", "bias"]
    assert collections.Counter(labels) == collections.Counter(expected)
    assert labels[-2:] == ["conv", "bias"]
    sums = [row for row, label in enumerate(labels) if label in ("sum", "concat")]
    assert all(np.count_nonzero(graph.edges[:, 1] == row) > 1 for row in sums)
    _check_leaves(graph, layers)

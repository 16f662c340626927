"""A leaf that reaches a layer through a function is kept, and the function named; layout and casts are none."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.tracing import trace

IMAGE = (8, 8, 3)
Params = dict[str, jax.Array]
Function = Callable[[jax.Array], jax.Array]


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of users broadcast as they like."""
    with jax.numpy_rank_promotion("allow"):
        yield


SHAPES = {
    "stem": (3, 3, 3, 6), "stem_bias": (6,), "scale": (6,), "shift": (6,), "depthwise": (3, 3, 1, 6), "bn_scale": (6,),
    "bn_shift": (6,), "table": (1, 8, 8, 6), "qkv": (6, 18), "out": (6, 6), "out_bias": (6,), "stack": (2, 6, 6),
    "running_scale": (6,), "running_shift": (6,), "fused_scale": (6,), "fused_shift": (6,), "head": (6, 10),
    "head_bias": (10,),
}  # fmt: skip
LEAVES = sorted(SHAPES)
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
MEAN, VARIANCE = jnp.full(6, 0.5), jnp.full(6, 2.0)


def network(p: Params, x: jax.Array) -> jax.Array:
    """Every kind of layer that takes parameters."""
    layout = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, p["stem"], (1, 1), "SAME", dimension_numbers=layout) + p["stem_bias"]
    x = jax.nn.standardize(x) * p["scale"] + p["shift"]
    x = lax.conv_general_dilated(x, p["depthwise"], (1, 1), "SAME", dimension_numbers=layout, feature_group_count=6)
    axes = (0, 1, 2)
    x = (x - x.mean(axes)) * (lax.rsqrt(x.var(axes) + 1e-5) * p["bn_scale"]) + p["bn_shift"] + p["table"]
    query, key, value = jnp.split(x.reshape(-1, 64, 6) @ p["qkv"], 3, axis=-1)
    x = x.reshape(-1, 64, 6) + (jax.nn.softmax(query @ key.swapaxes(1, 2)) @ value @ p["out"] + p["out_bias"])
    x = lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, p["stack"])[0]
    x = (x - MEAN) * lax.rsqrt(VARIANCE + 1e-5) * p["running_scale"] + p["running_shift"]
    factor = p["fused_scale"] * lax.rsqrt(VARIANCE + 1e-5)
    x = x * factor + (p["fused_shift"] - MEAN * factor)
    return x.mean(1) @ p["head"] + p["head_bias"]


def traced(functions: dict[str, Function], *, strict: bool = False) -> ArchGraph:
    """The network, some of whose leaves go through a function first."""

    def forward(p: Params, x: jax.Array) -> jax.Array:
        return network({name: functions.get(name, lambda leaf: leaf)(leaf) for name, leaf in p.items()}, x)

    return trace(forward, IMAGE, params=PARAMS, strict=strict)


def test_every_leaf_is_predicted_without_functions():
    assert {spec.path[0] for spec in traced({}, strict=True).params} == set(LEAVES)


FUNCTIONS: dict[str, Function] = {
    "exp": jnp.exp,
    "neg": jnp.negative,
    "tanh": jnp.tanh,
    "mul": lambda leaf: 0.01 * leaf,
    "add": lambda leaf: 1 + leaf,
    "sub": lambda leaf: 1 - leaf,
    "div": lambda leaf: leaf / 3,
    "abs": jnp.abs,
    "max": lambda leaf: jnp.maximum(leaf, 0),
    "square": jnp.square,
    "sqrt": jnp.sqrt,
    "logistic": jax.nn.sigmoid,
    "select_n": lambda leaf: jnp.where(jnp.arange(leaf.shape[-1]) > 0, leaf, 0.0),
    "round": jnp.round,
    "a cast to int8": lambda leaf: leaf.astype(jnp.int8).astype(jnp.float32),
}
LAYOUTS: list[Function] = [
    lambda leaf: leaf,
    lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32),
    lambda leaf: leaf.T.T,
    lambda leaf: leaf.reshape(-1).reshape(leaf.shape),
    lambda leaf: leaf[None][0],
    lax.stop_gradient,
    jax.jit(lambda leaf: leaf),
    lambda leaf: 1.0 * leaf + 0.0,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("leaf", LEAVES)
def test_leaf_through_a_function_is_kept_and_the_function_named(leaf: str, function: str):
    graph = traced({leaf: FUNCTIONS[function]})
    assert leaf not in {spec.path[0] for spec in graph.params}
    reasons = {kept.path[0]: kept.reason for kept in graph.kept}
    assert reasons == {leaf: f"reaches the data through {function}: the layer does not use the leaf itself"}


STEPS = st.one_of(st.sampled_from(sorted(FUNCTIONS)), st.integers(0, len(LAYOUTS) - 1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(LEAVES), st.lists(STEPS, min_size=1, max_size=4), max_size=4))
def test_random_chains_are_never_predicted_in_silence(chains: dict[str, list[str | int]]):
    def chained(steps: list[str | int]) -> Function:
        def apply(leaf: jax.Array) -> jax.Array:
            for step in steps:
                leaf = LAYOUTS[step](leaf) if isinstance(step, int) else FUNCTIONS[step](leaf)
            return leaf

        return apply

    functions = {leaf: chained(steps) for leaf, steps in chains.items()}
    changed = {leaf for leaf, steps in chains.items() if any(isinstance(step, str) for step in steps)}
    graph = traced(functions)
    predicted = {spec.path[0] for spec in graph.params}
    assert predicted.isdisjoint(changed)
    assert changed <= {kept.path[0] for kept in graph.kept}
    assert predicted == set(LEAVES) - changed
    if changed:
        with pytest.raises(ValueError, match="leaves cannot be predicted"):
            traced(functions, strict=True)


@pytest.mark.parametrize(
    "layer",
    [
        lambda w, x: x @ w + x @ jnp.exp(w),
        lambda w, x: x @ jnp.exp(w) + x @ w,
        lambda w, x: jnp.concatenate([x @ w[:, :3], x @ jnp.exp(w[:, 3:])], axis=-1),
        lambda w, x: jnp.concatenate([x @ jnp.exp(w[:, :3]), x @ w[:, 3:]], axis=-1),
        lambda w, x: x @ w * jnp.exp(w[0]),
        lambda w, x: x @ jnp.pad(w, ((0, 0), (0, 1)), constant_values=1.0)[:, :6],
        lambda w, x: x @ (w - w.mean(0)),
        lambda w, x: x @ (w / jnp.linalg.norm(w, axis=0)),
        lambda w, x: x @ (w * lax.rsqrt(VARIANCE)),
        lambda w, x: x @ (w - lax.rsqrt(VARIANCE)),
        lambda w, x: x @ lax.scan(lambda pair, _: ((pair[1], jnp.exp(pair[1])), None), (w, w), length=3)[0][0],
        lambda w, x: x @ jax.nn.standardize(jnp.exp(w), axis=0),
        lambda w, x: x @ jnp.exp(jax.nn.standardize(w, axis=0)),
    ],
)
def test_leaf_that_is_partly_or_nearly_itself_is_kept(layer: Callable[[jax.Array, jax.Array], jax.Array]):
    params = {"w": jnp.zeros((192, 6)), "head": jnp.zeros((6, 10))}
    graph = trace(lambda p, x: layer(p["w"], x.reshape(-1, 192)) @ p["head"], IMAGE, params=params)
    assert [leaf.name for leaf in graph.kept] == ["w"]
    assert "reaches the data through" in graph.kept[0].reason or "layer scale" in graph.kept[0].reason


@pytest.mark.parametrize(
    "scale",
    [
        lambda s, x, deviation: x * -(s * deviation),
        lambda s, x, deviation: x * (2.0 * (s * deviation)),
        lambda s, x, deviation: x * (s * deviation + 1.0),
        lambda s, x, deviation: x * jnp.exp(s * deviation),
        lambda s, x, deviation: x / -(s / deviation),
        lambda s, x, deviation: x * deviation * (s * lax.rsqrt(VARIANCE)),
        lambda s, x, deviation: x * (s * (3 * lax.rsqrt(VARIANCE))),
        lambda s, x, deviation: x * (s * jnp.exp(lax.rsqrt(VARIANCE))),
    ],
)
def test_scale_whose_product_with_the_deviation_is_changed_is_kept(scale: Callable[..., jax.Array]):
    def forward(p: Params, x: jax.Array) -> jax.Array:
        x = x @ p["w"]
        return scale(p["scale"], x, lax.rsqrt(x.var((0, 1, 2)) + 1e-5)).mean((1, 2)) @ p["head"]

    params = {"w": jnp.zeros((3, 6)), "scale": jnp.zeros(6), "head": jnp.zeros((6, 10))}
    assert [leaf.name for leaf in trace(forward, IMAGE, params=params).kept] == ["scale"]


@pytest.mark.parametrize(
    "standardise",
    [
        lambda w, gain: jax.nn.standardize(w, axis=(0, 1, 2)),
        lambda w, gain: (w - w.mean((0, 1, 2))) / jnp.sqrt(w.var((0, 1, 2)) + 1e-5),
        lambda w, gain: (w - w.mean((0, 1, 2))) / (w.std((0, 1, 2)) + 1e-5),
        lambda w, gain: (w - w.mean((0, 1, 2))) * lax.rsqrt(w.var((0, 1, 2)) + 1e-5) * gain * 27**-0.5,
        lambda w, gain: _scaled(w, lax.rsqrt(jnp.maximum(w.var((0, 1, 2)) * 27, 1e-4)) * gain),
    ],
)
def test_weight_standardisation_is_predicted(standardise: Callable[[jax.Array, jax.Array], jax.Array]):
    def forward(p: Params, x: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = standardise(p["kernel"], p["gain"])
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return x.mean((1, 2)) @ p["head"]

    params = {"kernel": jnp.zeros((3, 3, 3, 6)), "gain": jnp.zeros(6), "head": jnp.zeros((6, 10))}
    graph = trace(forward, IMAGE, params=params)
    assert {spec.name for spec in graph.params} == {"kernel", "head"}
    assert [leaf.name for leaf in graph.kept] == ["gain"]


def _scaled(w: jax.Array, factor: jax.Array) -> jax.Array:
    return w * factor - w.mean((0, 1, 2)) * factor


class Wrapped(nn.Module):
    """A convolution whose weight the library works on first."""

    wrapper: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.wrapper == "weight norm":
            x = nn.WeightNorm(nn.Conv(6, (3, 3)))(x)
        elif self.wrapper == "spectral norm":
            x = nn.SpectralNorm(nn.Conv(6, (3, 3)))(x, update_stats=False)
        else:
            x = nn.Conv(6, (3, 3), mask=jnp.ones((3, 3, 3, 6)))(x)
        return nn.Dense(10)(x.mean((1, 2)))


@pytest.mark.parametrize("wrapper", ["weight norm", "spectral norm", "mask"])
def test_kernel_in_a_wrapper_of_flax_is_kept(wrapper: str):
    graph = trace(Wrapped(wrapper), IMAGE)
    kept = {leaf.name for leaf in graph.kept}
    assert "Conv_0/kernel" in kept
    assert {spec.name for spec in graph.params} >= {"Dense_0/kernel", "Dense_0/bias"}

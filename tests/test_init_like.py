"""`init_like`: predicted leaves, kept leaves and other collections of models of each kind."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import GHN, GHNConfig, PretrainedGHN, init_ghn, predict
from ghn_jax.initialising import init_like

IMAGES = jnp.zeros((2, 8, 8, 3))


@pytest.fixture(scope="module")
def ghn() -> PretrainedGHN:
    """A small GHN for five classes."""
    module = GHN(GHNConfig(max_shape=(8, 8, 5, 5), num_classes=5, hid=8))
    return PretrainedGHN(module, init_ghn(module, jax.random.key(7)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(x))
        return x + y * self.param("layer_scale", nn.initializers.constant(1e-6), (1, 1, 8))


class Net(nn.Module):
    """Convolution, BN, position table, a stack of attention blocks, classifier."""

    classes: int = 5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(8, (3, 3), strides=2, name="stem", param_dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x).reshape(x.shape[0], -1, 8)
        x = x + self.param("table", nn.initializers.normal(), (1, 16, 8))
        scan = nn.scan(
            lambda block, carry, _: (block(carry), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = scan(Block(name="blocks"), x, None)
        return nn.Dense(self.classes, name="head")(x.mean(1))


def test_linen_variables_are_predicted_and_the_rest_is_initialised(ghn: PretrainedGHN):
    variables = init_like(Net(), jax.random.key(0), IMAGES, ghn)
    own = Net().init(jax.random.key(1), IMAGES)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), own)
    predicted = predict(trace(Net(), IMAGES.shape), ghn, allow_missing=True)["params"]
    params = variables["params"]
    for path in (("stem", "kernel"), ("bn", "scale"), ("head", "kernel")):
        np.testing.assert_array_equal(params[path[0]][path[1]], predicted[path[0]][path[1]])
    np.testing.assert_array_equal(params["table"], predicted["table"])
    query = params["blocks"]["attention"]["query"]["kernel"]
    assert query.shape == (3, 8, 2, 4)
    np.testing.assert_array_equal(query, predicted["blocks"]["attention"]["query"]["kernel"])
    assert float(jnp.abs(query[0] - query[1]).max()) > 0  # each layer of the stack has its own node
    np.testing.assert_array_equal(params["blocks"]["layer_scale"], np.full((3, 1, 1, 8), 1e-6, np.float32))
    np.testing.assert_array_equal(variables["batch_stats"]["bn"]["var"], np.ones(8))
    logits, _ = Net().apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert bool(jnp.isfinite(logits).all())


def test_classifier_of_another_task_keeps_its_own_initialisation(ghn: PretrainedGHN):
    params = init_like(Net(classes=7), jax.random.key(0), IMAGES, ghn)["params"]
    again = init_like(Net(classes=7), jax.random.key(3), IMAGES, ghn)["params"]
    assert params["head"]["kernel"].shape == (8, 7)
    assert float(jnp.abs(params["head"]["kernel"] - again["head"]["kernel"]).max()) > 0
    np.testing.assert_array_equal(params["head"]["bias"], np.zeros(7))
    np.testing.assert_array_equal(params["stem"]["kernel"], again["stem"]["kernel"])


def test_types_of_leaves_stay(ghn: PretrainedGHN):
    params = init_like(Net(dtype=jnp.bfloat16), jax.random.key(0), IMAGES, ghn)["params"]
    assert params["stem"]["kernel"].dtype == jnp.bfloat16
    assert params["bn"]["scale"].dtype == jnp.float32


def test_partitioned_leaves_stay_boxed(ghn: PretrainedGHN):
    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
            return nn.Dense(5, kernel_init=init, name="head")(x.reshape(x.shape[0], -1))

    kernel = init_like(Boxed(), jax.random.key(0), IMAGES, ghn)["params"]["head"]["kernel"]
    assert isinstance(kernel, nn.Partitioned)
    assert kernel.names == (None, "model")
    plain = predict(trace(Boxed(), IMAGES.shape), ghn)["params"]["head"]["kernel"]
    np.testing.assert_array_equal(kernel.value, plain)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, rngs=rngs)])
        self.head = nnx.Linear(8, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.head(self.drop(x.mean((1, 2))))


def test_nnx_state_updates_the_module(ghn: PretrainedGHN):
    model = NnxNet(nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(model))
    state = init_like(model, jax.random.key(0), IMAGES, ghn)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Param)), own_params(before))
    nnx.update(model, state)
    after = nnx.to_pure_dict(nnx.state(model))
    predicted = predict(trace(model, IMAGES.shape), ghn)["params"]
    np.testing.assert_array_equal(after["layers"][0]["kernel"], predicted["layers"]["0"]["kernel"])
    np.testing.assert_array_equal(after["head"]["bias"], predicted["head"]["bias"])
    np.testing.assert_array_equal(after["layers"][1]["mean"], np.zeros(8))
    assert model(IMAGES).shape == (2, 5)


def own_params(state: dict[str, Any]) -> dict[str, Any]:
    """Parameters of NnxNet out of its whole state."""
    conv, norm = state["layers"][0], state["layers"][1]
    norm = {name: norm[name] for name in ("scale", "bias")}
    return {"layers": {0: conv, 1: norm}, "head": state["head"]}


def test_function_gets_a_pytree_like_its_own(ghn: PretrainedGHN):
    def forward(params: list[Any], x: jax.Array) -> jax.Array:
        return jnp.tanh(x.reshape(x.shape[0], -1) @ params[0]["w"].T) @ params[1][0]

    own: list[Any] = [{"w": jnp.ones((6, 192)), "unused": jnp.full(3, 2.0)}, (jnp.ones((6, 5)),)]
    params = init_like(forward, jax.random.key(0), IMAGES, ghn, params=own)
    assert jax.tree.structure(params) == jax.tree.structure(own)
    np.testing.assert_array_equal(params[0]["unused"], own[0]["unused"])
    graph = trace(forward, IMAGES.shape, params=own)
    np.testing.assert_array_equal(params[0]["w"], predict(graph, ghn, allow_missing=True)["params"]["0"]["w"])
    assert float(jnp.abs(params[1][0] - 1).max()) > 0.1


def test_layout_says_which_axis_holds_the_channels(ghn: PretrainedGHN):
    """Without it the shape is refused with an error that names the option; each layout gives its own graph."""

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return x.mean((1, 2)) @ params["w"]

    own, images = {"w": jnp.zeros((64, 5))}, jax.ShapeDtypeStruct((2, 4, 4, 64), jnp.float32)
    with pytest.raises(ValueError, match="layout='CHW' or layout='HWC'"):
        init_like(forward, jax.random.key(0), images, ghn, params=own)
    found = []
    for layout in ("NHWC", "NCHW"):
        found.append(init_like(forward, jax.random.key(0), images, ghn, params=own, layout=layout)["w"])
        graph = trace(forward, images.shape, params=own, layout=layout)
        np.testing.assert_array_equal(found[-1], predict(graph, ghn)["params"]["w"])
    assert float(jnp.abs(found[0] - found[1]).max()) > 0

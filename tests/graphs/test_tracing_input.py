"""The input shape is read as stated, or refused where it can be read in two ways."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.graphs import Primitive
from ghn_jax.graphs.tracing import trace
from ghn_jax.graphs.tracing.input_layout import batch_axes


@pytest.mark.parametrize(
    ("shape", "layout", "batch", "labels"),
    [
        ((32, 32, 3), None, (2, 32, 32, 3), "BSSC"),
        ((3, 32, 32), None, (2, 3, 32, 32), "BCSS"),
        ((1, 28, 28), None, (2, 1, 28, 28), "BCSS"),
        ((4, 32, 3), None, (2, 4, 32, 3), "BSSC"),
        ((7, 7, 512), None, (2, 7, 7, 512), "BSSC"),
        ((16, 224, 224, 3), None, (16, 224, 224, 3), "BSSC"),
        ((16, 3, 224, 224), None, (16, 3, 224, 224), "BCSS"),
        ((12,), None, (2, 12), "BC"),
        ((64, 12), None, (2, 64, 12), "BSC"),
        ((4, 4, 64), "HWC", (2, 4, 4, 64), "BSSC"),
        ((4, 4, 64), "CHW", (2, 4, 4, 64), "BCSS"),
        ((4, 4, 64), "NCHW", (2, 4, 4, 64), "BCSS"),
        ((5, 4, 4, 64), "nhwc", (5, 4, 4, 64), "BSSC"),
        ((5, 4, 4, 64), "BCHW", (5, 4, 4, 64), "BCSS"),
        ((5, 9, 4), "NLC", (5, 9, 4), "BSC"),
        ((8, 16, 16, 3), "DHWC", (2, 8, 16, 16, 3), "BSSSC"),
        (np.array([32, 32, 3]), None, (2, 32, 32, 3), "BSSC"),
    ],
)
def test_axes(shape: tuple[int, ...], layout: str | None, batch: tuple[int, ...], labels: str):
    assert batch_axes(shape, layout) == (batch, labels)


@pytest.mark.parametrize(
    "shape", [(4, 4, 64), (2, 4, 4, 64), (8, 8, 8), (3, 3, 3), (64, 8, 8), (3, 32, 48), (1, 1, 64)]
)
def test_shape_that_may_be_read_in_two_ways_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"channels first or last: say which with layout='CHW' or layout='HWC'"):
        trace(lambda p, x: x.mean((1, 2)) @ p, shape, params=jnp.zeros((64, 10)))


@pytest.mark.parametrize("shape", [(-1, 8, 3), (0, 8, 3), (), (8.0, 8, 3), (True, 8, 3), (None, 8, 8, 3), ("8", 8, 3)])
def test_shape_with_axes_that_are_no_sizes(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="every axis must be a positive integer"):
        trace(lambda p, x: x.mean((1, 2)) @ p, shape, params=jnp.zeros((3, 10)))


@pytest.mark.parametrize(
    ("layout", "message"),
    [("HHC", "each once"), ("NHW", "C among them"), ("H-C", "one letter an axis"), ("NHWDC", "does not fit"),
     ("NC", "does not fit")],
)  # fmt: skip
def test_layout_that_does_not_fit(layout: str, message: str):
    with pytest.raises(ValueError, match=message):
        trace(lambda p, x: x.mean((1, 2)) @ p, (8, 8, 3), params=jnp.zeros((3, 10)), layout=layout)


def test_leaves_with_one_path_are_refused():
    tree = {"first": {1: jnp.zeros((192, 6))}, "second": {"1": jnp.zeros((6, 10))}}
    graph = trace(lambda p, x: x.reshape(-1, 192) @ p["first"][1] @ p["second"]["1"], (8, 8, 3), params=tree)
    assert {spec.name for spec in graph.params} == {"first/1", "second/1"}
    with pytest.raises(ValueError, match=r"two parameter leaves have the path 'w'; rename one"):
        trace(
            lambda p, x: x.reshape(-1, 192) @ p.first @ p.second,
            (8, 8, 3),
            params=Twice(jnp.zeros((192, 6)), jnp.zeros((6, 10))),
        )


@jax.tree_util.register_pytree_with_keys_class
class Twice:
    """Two leaves under keys of equal text."""

    def __init__(self, first: jax.Array, second: jax.Array) -> None:
        self.first, self.second = first, second

    def tree_flatten_with_keys(self):
        keys = (jax.tree_util.DictKey("w"), jax.tree_util.GetAttrKey("w"))
        return tuple(zip(keys, (self.first, self.second), strict=True)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_layout_decides_what_is_space():
    class Net(nn.Module):
        """A mean over the last two axes, or the first two, is one over space only in one layout."""

        axes: tuple[int, int]

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(10)(x.mean(self.axes))

    def labels(axes: tuple[int, int], layout: str) -> list[str]:
        graph = trace(Net(axes), (4, 4, 64), layout=layout)
        return [Primitive(kind).label for kind in graph.node_types.tolist()]

    assert labels((1, 2), "HWC") == ["input", "glob_avg", "conv", "bias"]
    assert labels((2, 3), "CHW") == ["input", "glob_avg", "conv", "bias"]
    assert labels((2, 3), "HWC") == ["input", "conv", "bias"]

"""Whole models in several libraries and through JAX's transformations."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from graph_compare import specs_by_path
from isomorphism import isomorphic

from ghn_jax.graphs import ArchGraph, Primitive, Role
from ghn_jax.graphs.tracing import trace

IMAGE = (8, 8, 3)


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of users broadcast as they like."""
    with jax.numpy_rank_promotion("allow"):
        yield


def labels(graph: ArchGraph) -> list[str]:
    return [Primitive(kind).label for kind in graph.node_types.tolist()]


def predecessors(graph: ArchGraph, row: int) -> list[int]:
    return graph.edges[graph.edges[:, 1] == row, 0].tolist()


class Attention(nn.Module):
    """Multi-head attention with one projection to queries, keys and values."""

    heads: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = nn.DenseGeneral((3, self.heads, x.shape[-1] // self.heads), use_bias=False, name="qkv")(x)
        q, k, v = (qkv[:, :, i] for i in range(3))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]))
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out")(jnp.einsum("bhqk,bkhd->bqhd", weights, v))


class Block(nn.Module):
    """A pre-norm transformer block, with flax's attention or our own."""

    library: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm()(x)
        attention = (
            nn.MultiHeadDotProductAttention(2, name="attention") if self.library else Attention(name="attention")
        )
        x = x + attention(y)
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Patches, position table, class token, blocks, classifier."""

    block: Any = Block
    depth: int = 2
    token: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(8, (2, 2), strides=2)(x)
        x = x.reshape(x.shape[0], -1, 8)
        if self.token:
            token = self.param("token", nn.initializers.zeros, (1, 1, 8))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 8)), x], axis=1)
        x = x + self.param("table", nn.initializers.zeros, (1, x.shape[1], 8))
        for _ in range(self.depth):
            x = self.block()(x)
        return nn.Dense(10)(x[:, 0] if self.token else x.mean(1))


HEAD = ["input", "conv", "bias", "pos_enc", "sum"]
MLP = ["ln", "conv", "bias", "conv", "bias", "sum"]


def test_transformer_with_one_projection():
    graph = trace(Transformer(), IMAGE, strict=True)
    block = ["ln", "conv", "msa", "conv", "bias", "sum", *MLP]
    assert labels(graph) == [*HEAD, *block, *block, "glob_avg", "conv", "bias"]
    msa = labels(graph).index("msa")
    assert predecessors(graph, msa) == [msa - 1]
    assert predecessors(graph, 4) == [2, 3]
    qkv = specs_by_path(graph)["Block_0", "attention", "qkv", "kernel"]
    assert (qkv.axes, qkv.shape, qkv.canonical_shape) == ("IOOO", (8, 3, 2, 4), (24, 8, 1, 1))
    assert specs_by_path(graph)["Block_0", "attention", "out", "kernel"].axes == "IIO"
    table = specs_by_path(graph)["table",]
    assert (table.axes, table.role) == ("OHI", Role.POSITION)
    assert graph.node_shapes[3].tolist() == [1, 8, 4, 4]


def test_transformer_with_a_class_token_and_flax_attention():
    graph = trace(Transformer(block=lambda: Block(library=True), token=True), IMAGE)
    block = ["ln", "conv", "bias", "conv", "bias", "conv", "bias", "msa", "conv", "bias", "sum", *MLP]
    assert sorted(labels(graph)) == sorted([*HEAD, *block, *block, "conv", "bias"])
    msa = labels(graph).index("msa")
    assert [labels(graph)[row] for row in predecessors(graph, msa)] == ["bias"] * 3
    assert specs_by_path(graph)["Block_0", "attention", "query", "bias"].axes == "OO"
    assert [leaf.path for leaf in graph.kept] == [("token",)]
    assert 0 < graph.kept_share < 0.01
    assert graph.node_shapes[labels(graph).index("pos_enc")].tolist() == [1, 8, 4, 4]


@pytest.mark.parametrize("wrap", [nn.jit, nn.remat, lambda block: block])
def test_transformations_change_nothing(wrap: Any):
    plain, wrapped = trace(Transformer(), IMAGE), trace(Transformer(block=wrap(Block)), IMAGE)
    assert labels(plain) == labels(wrapped)
    assert plain.edges.tolist() == wrapped.edges.tolist()


class Stacked(nn.Module):
    """Blocks scanned over stacked parameters."""

    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(8, (2, 2), strides=2)(x).reshape(x.shape[0], -1, 8)
        block = nn.remat(Block) if self.remat else Block
        scan = nn.scan(
            lambda module, carry, _: (module(carry), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = scan(block(name="blocks"), x, None)
        return nn.Dense(10)(x.mean(1))


@pytest.mark.parametrize("remat", [False, True])
def test_scan_over_layers(remat: bool):
    graph = trace(Stacked(remat), IMAGE, strict=True)
    block = ["ln", "conv", "msa", "conv", "bias", "sum", *MLP]
    assert labels(graph) == ["input", "conv", "bias", *block, *block, *block, "glob_avg", "conv", "bias"]
    specs = [spec for spec in graph.params if spec.path == ("blocks", "Dense_0", "kernel")]
    assert [(spec.index, spec.shape, spec.axes) for spec in specs] == [((i,), (16, 8), "IO") for i in range(3)]
    assert [spec.node for spec in specs] == [12, 24, 36]


def test_function_that_loops_over_stacked_parameters():
    def forward(p: Any, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for i in range(3):
            x = jax.nn.relu(x @ p["w"][i] + p["b"][i])
        return x @ p["w"][-1]

    params = {"w": jnp.zeros((4, 192, 192)), "b": jnp.zeros((3, 192))}
    graph = trace(forward, IMAGE, params=params, strict=True)
    assert labels(graph) == ["input", *["conv", "bias"] * 3, "conv"]
    assert [(s.index, s.node) for s in graph.params if s.path == ("w",)] == [((0,), 1), ((1,), 3), ((2,), 5), ((3,), 7)]


def test_layers_that_share_a_leaf_are_nodes_with_one_spec():
    def forward(p: Any, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        return jax.nn.relu(jax.nn.relu(x @ p["w"]) @ p["w"]) @ p["head"]

    graph = trace(forward, IMAGE, params={"w": jnp.zeros((192, 192)), "head": jnp.zeros((192, 10))}, strict=True)
    assert labels(graph) == ["input", "conv", "conv", "conv"]
    assert [(spec.name, spec.node) for spec in graph.params] == [("head", 3), ("w", 1)]


def test_slices_of_one_kernel_on_the_same_data_are_one_layer():
    def forward(p: Any, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], 64, 3)
        q, k, v = (x @ part for part in jnp.split(p["qkv"], 3, axis=1))
        weights = jax.nn.softmax(q @ k.swapaxes(1, 2))
        return (weights @ v).mean(1) @ p["head"]

    graph = trace(forward, IMAGE, params={"qkv": jnp.zeros((3, 12)), "head": jnp.zeros((4, 10))}, strict=True)
    assert labels(graph) == ["input", "conv", "msa", "glob_avg", "conv"]
    assert graph.node_shapes[1].tolist() == [12, 3, 1, 1]


def test_unpacked_arrays_are_followed_as_their_slices_are():
    """JAX 0.12 has an operation of its own for unpacking; before, it was a slice for each part."""

    def forward(p: Any, x: jax.Array, unpacked: bool) -> jax.Array:
        def parts(array: jax.Array) -> Any:
            return tuple(array) if unpacked else [array[i] for i in range(len(array))]

        x = x.reshape(x.shape[0], 64, 3)
        for kernel in parts(p["layers"]):
            x = jax.nn.relu(x @ kernel)
        q, k, v = parts(jnp.moveaxis((x @ p["qkv"]).reshape(-1, 64, 3, 4), 2, 0))
        return (jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v).mean(1) @ p["head"]

    shapes = {"layers": (2, 3, 3), "qkv": (3, 12), "head": (4, 10)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    found, expected = (trace(functools.partial(forward, unpacked=u), IMAGE, params=params) for u in (True, False))
    assert labels(found) == ["input", "conv", "conv", "conv", "msa", "glob_avg", "conv"]
    assert isomorphic(found, expected)
    assert {(spec.name, spec.shape) for spec in found.params} == {
        ("layers[0]", (3, 3)),
        ("layers[1]", (3, 3)),
        ("qkv", (3, 12)),
        ("head", (4, 10)),
    }


def test_dead_branches_are_dropped():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = nn.Conv(6, (3, 3), name="stem")(x).mean((1, 2))
            return nn.Dense(10, name="head")(x), nn.Dense(5, name="aux")(x)

    graph = trace(Net(), IMAGE, output=lambda result: result[0])
    assert labels(graph) == ["input", "conv", "bias", "glob_avg", "conv", "bias"]
    assert {leaf.path for leaf in graph.kept} == {("aux", "kernel"), ("aux", "bias")}
    assert all("does not reach the output" in leaf.reason for leaf in graph.kept)
    with pytest.raises(ValueError, match="returns 2 arrays"):
        trace(Net(), IMAGE)


def test_dropout_and_train_flags_are_set_for_evaluation():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool, deterministic: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(6, (3, 3))(x))
            return nn.Dense(10)(nn.Dropout(0.5)(x.mean((1, 2)), deterministic=deterministic))

    expected = ["input", "conv", "bias", "bn", "glob_avg", "conv", "bias"]
    assert labels(trace(Net(), IMAGE, strict=True)) == expected
    training = trace(Net(), IMAGE, strict=True, call_kwargs={"train": True, "deterministic": False})
    assert labels(training) == expected


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(2)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.drop(nnx.relu(self.norm(self.conv(x)))).mean((1, 2))
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("abstract", [False, True])
def test_nnx_module(abstract: bool):
    model = nnx.eval_shape(lambda: NnxNet(nnx.Rngs(0))) if abstract else NnxNet(nnx.Rngs(0))
    graph = trace(model, IMAGE, strict=True)
    assert labels(graph) == ["input", "conv", "bias", "bn", "glob_avg", "conv", "bias", "conv", "bias"]
    assert specs_by_path(graph)["norm", "scale"].role is Role.SCALE
    assert specs_by_path(graph)["layers", "1", "kernel"].role is Role.CLASSIFIER_KERNEL


def test_nothing_is_allocated_or_run():
    def forward(p: Any, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1) @ p

    huge = jax.ShapeDtypeStruct((1 << 30, 100), jnp.float32)  # 400 GB
    graph = trace(forward, (1 << 15, 1 << 15, 1), params=huge, name="huge")
    assert (graph.num_nodes, graph.num_params, graph.name) == (2, 100 << 30, "huge")

"""Which tensors are decoded together: groups of one slab shape, cut into chunks of few sizes (host side).

A compiled decoding program belongs to a slab shape and a chunk size, so both come from small sets and a new
architecture seldom compiles anything.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.batching import BUCKETS, Bucket, GraphBatch, batch_graphs
from ghn_jax.graphs.param_spec import VECTOR_ROLES, ParamSpec, Path, Role
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.decoders.fitting import TensorKind, slab_shape
from ghn_jax.hypernet.decoders.slabs import SlabShape

KERNEL_CHUNKS = (1, 4, 16, 64)
VECTOR_CHUNKS = (256,)


class GroupKey(NamedTuple):
    """A decoding program: which decoder, and the slab's shape (empty for vectors, whose slabs have one size)."""

    decoder: str
    shape: tuple[int, ...]

    @property
    def has_slabs(self) -> bool:
        """Whether rows are slabs of kernels, not vectors."""
        return self.decoder in (KERNELS, CLASSIFIERS)

    @property
    def slab(self) -> SlabShape:
        """The slab's shape as (kh, kw, in, out)."""
        height, width, in_size, out_size = self.shape
        return height, width, in_size, out_size


KERNELS, CLASSIFIERS, VECTORS, CLASSIFIER_BIASES = "kernels", "classifiers", "vectors", "classifier_biases"


class Member(NamedTuple):
    """One predicted tensor: its place in the chunk, its architecture (place in the list), spec and kind."""

    row: int
    architecture: int
    spec: ParamSpec
    kind: TensorKind

    @property
    def key(self) -> tuple[int, Path, tuple[int, ...]]:
        """Architecture, path and index."""
        return self.architecture, self.spec.path, self.spec.index


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Tensors decoded in one call.

    Attributes:
      key: decoding program.
      nodes: int32 (B,), rows of the flattened states (G * N, D); the last is repeated as padding.
      members: the tensors; several may share a row (weight and bias of a norm layer).
    """

    key: GroupKey
    nodes: np.ndarray
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class PreparedBatch:
    """Graphs made ready for prediction: padded arrays and the plan of decoding.

    Attributes:
      graphs: the architectures.
      batch: their padded batch.
      chunks: what is decoded, call by call.
    """

    graphs: tuple[ArchGraph, ...]
    batch: GraphBatch
    chunks: tuple[Chunk, ...]


def group_key(config: GHNConfig, spec: ParamSpec, architecture: str) -> GroupKey:
    """Group of a tensor.

    Raises:
      ValueError: for a classifier of another number of classes, or larger than 1 x 1.
    """
    if spec.role in VECTOR_ROLES and spec.role is not Role.CLASSIFIER_BIAS:
        return GroupKey(VECTORS, ())
    if spec.role not in (Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS):
        return GroupKey(KERNELS, slab_shape(config, TensorKind.of(spec)))
    classes, _, *kernel = spec.canonical_shape
    if classes != config.num_classes or kernel != [1, 1]:
        raise ValueError(
            f"architecture {architecture!r}: the classifier {spec.name!r} has shape {spec.shape}, but this GHN "
            f"predicts 1 x 1 classifiers of {config.num_classes} classes; leave the classifier out "
            "and initialise it yourself"
        )
    if spec.role is Role.CLASSIFIER_BIAS:
        return GroupKey(CLASSIFIER_BIASES, ())
    return GroupKey(CLASSIFIERS, (1, 1, slab_shape(config, TensorKind.of(spec))[2], classes))


def chunk_sizes(count: int, sizes: Sequence[int]) -> list[int]:
    """Cuts `count` rows into chunks of the given sizes, the last of them padded by at most a third.

    Sizes must begin with one that is always acceptable: below it everything is padded to it.
    """
    chunks = []
    while count > 0:
        fitting = [size for size in sizes if 3 * size <= 4 * count]
        chunks.append(fitting[-1] if fitting else sizes[0])
        count -= chunks[-1]
    return chunks


def prepare(
    config: GHNConfig,
    graphs: Sequence[ArchGraph],
    classifier: bool = True,
    buckets: Sequence[Bucket] = BUCKETS,
) -> PreparedBatch:
    """Pads graphs and plans which tensors are decoded together.

    Args:
      config: of the hypernetwork.
      graphs: at least one.
      classifier: False leaves the classifier's tensors out.
      buckets: declared padded sizes.

    Raises:
      ValueError: for a graph above the largest bucket or a classifier that the GHN does not predict.
    """
    batch = batch_graphs(graphs, buckets, config.cutoff)
    groups: dict[GroupKey, dict[int, list[tuple[int, ParamSpec]]]] = {}
    for architecture, graph in enumerate(graphs):
        for spec in graph.params:
            if not classifier and spec.role in (Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS):
                continue
            node = architecture * batch.width + spec.node
            key = group_key(config, spec, graph.name)
            groups.setdefault(key, {}).setdefault(node, []).append((architecture, spec))
    chunks = []
    for key, by_node in groups.items():
        items = list(by_node.items())
        start = 0
        for size in chunk_sizes(len(items), KERNEL_CHUNKS if key.has_slabs else VECTOR_CHUNKS):
            chunks.append(_chunk(key, items[start : start + size], size))
            start += size
    return PreparedBatch(tuple(graphs), batch, tuple(chunks))


def _chunk(key: GroupKey, items: list[tuple[int, list[tuple[int, ParamSpec]]]], size: int) -> Chunk:
    nodes = np.full(size, items[-1][0], np.int32)
    nodes[: len(items)] = [node for node, _ in items]
    members = tuple(
        Member(row, architecture, spec, TensorKind.of(spec))
        for row, (_, specs) in enumerate(items)
        for architecture, spec in specs
    )
    return Chunk(key, nodes, members)

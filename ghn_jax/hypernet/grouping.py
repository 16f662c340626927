"""Which tensors are decoded together: groups by the decoder's key, cut into chunks of few sizes (host side).

A compiled decoding program belongs to a key and a chunk size, so both come from small sets and a new architecture
seldom compiles anything.
"""

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.batching import BUCKETS, GraphBatch, batch_graphs
from ghn_jax.graphs.param_spec import ParamSpec, Path, Role
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.protocols import Decoder, DecodingKey, kind_of

CHUNKS = (1, 4, 16, 64)
"""Numbers of tensors decoded in one call."""

MANY_WEIGHTS = 100_000_000
"""From so many weights on, groups are decoded as a whole, up to the largest chunk: each call is a pass over all of them
(1.8 GB of GHN-3-XL), which takes as long as compiling a program for one more size."""

PIECES = (1, 4, 16)
"""Numbers of tensors fitted in one call: few, since each is a program of every kind of tensor."""

CLASSIFIER_ROLES = frozenset({Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS})


class Member(NamedTuple):
    """One predicted tensor: its architecture (place in the list), spec and what fitting depends on."""

    architecture: int
    spec: ParamSpec
    kind: ParamSpec

    @property
    def tensor(self) -> tuple[int, Path, tuple[int, ...]]:
        """Architecture, path and index."""
        return self.architecture, self.spec.path, self.spec.index


class Piece(NamedTuple):
    """Consecutive tensors of a chunk that are of one kind and fitted in one call: the first row and the tensors."""

    start: int
    members: tuple[Member, ...]

    @property
    def kind(self) -> ParamSpec:
        """What fitting depends on."""
        return self.members[0].kind


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Tensors decoded in one call.

    Attributes:
      key: their group.
      nodes: int32 (B,), rows of the flattened states (G * N, D); the last is repeated as padding.
      pieces: the tensors, in the order of the rows.
    """

    key: DecodingKey
    nodes: np.ndarray
    pieces: tuple[Piece, ...]

    @property
    def members(self) -> list[Member]:
        """All tensors, in the order of the rows."""
        return [member for piece in self.pieces for member in piece.members]


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

    def programs(self) -> frozenset[Hashable]:
        """What the compiled programs that predict it depend on: equal sets need nothing new."""
        sizes = {(self.batch.num_graphs, self.batch.width, len(self.batch.graph.senders))}
        decoding = {(chunk.key, len(chunk.nodes)) for chunk in self.chunks}
        pieces = ((chunk, piece) for chunk in self.chunks for piece in chunk.pieces)
        fitting = {(chunk.key, len(chunk.nodes), piece.kind, len(piece.members)) for chunk, piece in pieces}
        return frozenset(sizes | decoding | fitting)


@functools.lru_cache(maxsize=64)
def _decoder(config: GHNConfig) -> Decoder:
    return config.decoder.build(config)


def chunk_sizes(count: int, sizes: Sequence[int] = CHUNKS) -> list[int]:
    """Cuts `count` rows into chunks of the given sizes, the last of them padded by at most a third.

    Sizes must begin with one that is always acceptable: below it everything is padded to it.
    """
    chunks = []
    while count > 0:
        fitting = [size for size in sizes if 3 * size <= 4 * count]
        chunks.append(fitting[-1] if fitting else sizes[0])
        count -= chunks[-1]
    return chunks


def whole_chunks(count: int) -> list[int]:
    """As few chunks as can be, without padding."""
    return [min(CHUNKS[-1], count - start) for start in range(0, count, CHUNKS[-1])]


def prepare(
    config: GHNConfig,
    graphs: Sequence[ArchGraph],
    classifier: bool = True,
    buckets: Sequence[int] = BUCKETS,
) -> PreparedBatch:
    """Pads graphs and plans which tensors are decoded together.

    Args:
      config: of the hypernetwork.
      graphs: at least one.
      classifier: False leaves the classifier's tensors out.
      buckets: padded sizes.

    Raises:
      ValueError: for a graph above the largest bucket or a tensor that the decoder does not predict, such as the
        classifier of another number of classes.
    """
    batch = batch_graphs(graphs, buckets, config.encoder.cutoff)
    decoder = _decoder(config)
    few_sizes = config.decoder.weights_read(config) < MANY_WEIGHTS
    groups: dict[DecodingKey, list[Member]] = {}
    for architecture, graph in enumerate(graphs):
        for spec in graph.params:
            if not classifier and spec.role in CLASSIFIER_ROLES:
                continue
            try:
                key = decoder.key(spec)
            except ValueError as error:
                raise ValueError(f"architecture {graph.name!r}: {error}") from None
            groups.setdefault(key, []).append(Member(architecture, spec, kind_of(spec)))
    chunks = []
    for key, members in groups.items():
        by_kind: dict[ParamSpec, list[Member]] = {}
        for member in members:
            by_kind.setdefault(member.kind, []).append(member)
        # Kinds with many tensors first: their runs are cut least.
        runs = sorted(by_kind.values(), key=len, reverse=True)
        ordered = [member for run in runs for member in run]
        start = 0
        for size in chunk_sizes(len(members)) if few_sizes else whole_chunks(len(members)):
            chunks.append(_chunk(key, ordered[start : start + size], size, batch.width))
            start += size
    return PreparedBatch(tuple(graphs), batch, tuple(chunks))


def _chunk(key: DecodingKey, members: list[Member], size: int, width: int) -> Chunk:
    rows = [member.architecture * width + member.spec.node for member in members]
    nodes = np.full(size, rows[-1], np.int32)
    nodes[: len(rows)] = rows
    pieces, start = [], 0
    for _, run in itertools.groupby(members, key=lambda member: member.kind):
        left = list(run)
        while left:
            count = max(size for size in PIECES if size <= len(left))
            pieces.append(Piece(start, tuple(left[:count])))
            start, left = start + count, left[count:]
    return Chunk(key, nodes, tuple(pieces))

"""Several architecture graphs padded to one of a few declared sizes, for compiled programs.

The only file that imports jraph (archived upstream; its masks are wrong on an unpadded graph and its
`zero_out_padding` is broken on current jax, so batches are always padded here and masks computed here).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jraph
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph

Array = jax.Array | np.ndarray

GraphsTuple: Any = jraph.GraphsTuple
"""Untyped on purpose: jraph declares its fields more narrowly than it uses them."""

VIRTUAL_EDGE_CUTOFF = 50
"""s_max of the paper's virtual edges (Eq. 4)."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Padded size of every graph of a batch: N nodes, and E edges on average."""

    nodes: int
    edges: int

    def holds(self, graphs: Sequence[ArchGraph]) -> bool:
        """Whether all the graphs fit."""
        return max(graph.num_nodes for graph in graphs) <= self.nodes and sum(
            graph.num_edges for graph in graphs
        ) <= self.edges * _padded_count(len(graphs))


BUCKETS = tuple(Bucket(nodes, 8 * nodes) for nodes in (64, 128, 256, 384, 512, 768, 1024, 2048, 4096))
"""Default sizes: the largest architecture of DeepNets-1M has 1,017 nodes."""


@flax.struct.dataclass
class GraphBatch:
    """G graphs padded to N nodes each (both from declared sizes), as arrays alone: names stay with the caller.

    Attributes:
      graph: jraph.GraphsTuple with G * N + 1 nodes and at least G + 1 graphs; the real graphs come first, one after
        the other, then padding. `nodes` is {"type": int32 (G * N + 1,), "shape": int32 (G * N + 1, 4)}, edges are the
        real ones of the architectures, senders and receivers flat rows.
      distances: uint8 (G, N, N), [g, i, j] from node i to node j up to the cutoff, 0 for none.
      rows: int32 (G, N), flat row in `graph` of node n of graph g; a padding row beyond the graph's last node.
      num_nodes: int32 (G,), real nodes of each graph; 0 for padded graphs.
    """

    graph: Any
    distances: Array
    rows: Array
    num_nodes: Array

    @property
    def num_graphs(self) -> int:
        """G, padding included."""
        return self.rows.shape[0]

    @property
    def width(self) -> int:
        """N, padding included."""
        return self.rows.shape[1]

    @property
    def graph_mask(self) -> Array:
        """Bool (G,): real graphs."""
        return self.num_nodes > 0

    @property
    def node_mask(self) -> Array:
        """Bool (G, N): real nodes."""
        return np.arange(self.width)[None, :] < self.num_nodes[:, None]

    @property
    def flat_node_mask(self) -> Array:
        """Bool (G * N + 1,): real nodes, in the rows of `graph`."""
        return np.arange(self.num_graphs * self.width + 1) < self.num_nodes.sum()

    @property
    def flat_edge_mask(self) -> Array:
        """Bool (E,): real edges, in the rows of `graph`."""
        real = (self.graph.n_edge[: self.num_graphs] * self.graph_mask).sum()
        return np.arange(self.graph.senders.shape[0]) < real

    def locate(self, row: int) -> tuple[int, int]:
        """(architecture, node) of a flat row of `graph`; the architecture is its place in the list that was batched.

        Raises:
          ValueError: for a padding row or one outside the batch.
        """
        ends = np.cumsum(np.asarray(self.num_nodes))
        if not 0 <= row < ends[-1]:
            raise ValueError(f"row {row} is padding: the batch holds {ends[-1]} nodes")
        architecture = int(np.searchsorted(ends, row, side="right"))
        return architecture, int(row - (ends[architecture] - self.num_nodes[architecture]))

    def unpad(self, values: Array) -> list[Array]:
        """Values (G, N, ...) of the padded nodes as one array (N, ...) for each real graph."""
        counts = [int(count) for count in np.asarray(self.num_nodes) if count]
        return [values[place, :count] for place, count in enumerate(counts)]


def _padded_count(count: int) -> int:
    """Number of graphs that a batch of `count` is padded to: a power of two."""
    return 1 << (count - 1).bit_length()


def choose_bucket(graphs: Sequence[ArchGraph], buckets: Sequence[Bucket] = BUCKETS) -> Bucket:
    """Smallest bucket that holds every graph.

    Raises:
      ValueError: without graphs or buckets, or naming an architecture above the largest bucket.
    """
    if not graphs:
        raise ValueError("a batch needs at least one graph, got none")
    if not buckets:
        raise ValueError("a batch needs at least one declared bucket, got none")
    for bucket in sorted(buckets):
        if bucket.holds(graphs):
            return bucket
    largest = max(buckets)
    worst = max(graphs, key=lambda graph: (graph.num_nodes > largest.nodes, graph.num_edges, graph.num_nodes))
    raise ValueError(
        f"architecture {worst.name!r} with {worst.num_nodes} nodes and {worst.num_edges} edges is above the largest "
        f"bucket of {largest.nodes} nodes and {largest.edges} edges a graph; declare a larger Bucket"
    )


def batch_graphs(
    graphs: Sequence[ArchGraph],
    buckets: Sequence[Bucket] = BUCKETS,
    cutoff: int = VIRTUAL_EDGE_CUTOFF,
) -> GraphBatch:
    """Pads graphs to the smallest bucket that holds all of them, and their number to a power of two.

    Args:
      graphs: at least one.
      buckets: declared sizes.
      cutoff: largest distance kept.

    Returns:
      A batch of NumPy arrays.

    Raises:
      ValueError: without graphs, or naming an architecture above the largest bucket.
    """
    bucket = choose_bucket(graphs, buckets)
    count, width = _padded_count(len(graphs)), bucket.nodes
    num_nodes = np.zeros(count, np.int32)
    num_nodes[: len(graphs)] = [graph.num_nodes for graph in graphs]
    distances = np.zeros((count, width, width), np.uint8)
    rows = np.full((count, width), count * width, np.int32)
    start = 0
    for place, graph in enumerate(graphs):
        nodes = graph.num_nodes
        distances[place, :nodes, :nodes] = graph.distances(cutoff)
        rows[place, :nodes] = np.arange(start, start + nodes)
        start += nodes
    flat = jraph.batch_np([_graphs_tuple(graph) for graph in graphs])
    padded = _pad(flat, count * width + 1, count * bucket.edges, count + 1)
    return GraphBatch(graph=padded, distances=distances, rows=rows, num_nodes=num_nodes)


def _graphs_tuple(graph: ArchGraph) -> Any:
    return GraphsTuple(
        nodes={"type": graph.node_types.astype(np.int32), "shape": graph.node_shapes.astype(np.int32)},
        edges=None,
        senders=graph.edges[:, 0].astype(np.int32),
        receivers=graph.edges[:, 1].astype(np.int32),
        n_node=np.array([graph.num_nodes], np.int32),
        n_edge=np.array([graph.num_edges], np.int32),
        globals=None,
    )


def _pad(graph: Any, nodes: int, edges: int, graphs: int) -> Any:
    """Jraph's padding convention (a first padding graph takes all spare rows, the others are empty), in NumPy."""
    spare_nodes = nodes - int(graph.n_node.sum())
    spare_edges = edges - int(graph.n_edge.sum())
    first_spare = nodes - spare_nodes

    def pad(array: Any, rows: int, value: int = 0) -> np.ndarray:
        return np.concatenate([array, np.full((rows, *array.shape[1:]), value, array.dtype)])

    def pad_counts(array: Any, spare: int) -> np.ndarray:
        rest = np.zeros(graphs - len(array), np.int32)
        rest[0] = spare
        return np.concatenate([array, rest])

    return graph._replace(
        nodes={key: pad(array, spare_nodes) for key, array in graph.nodes.items()},
        senders=pad(graph.senders, spare_edges, first_spare),
        receivers=pad(graph.receivers, spare_edges, first_spare),
        n_node=pad_counts(graph.n_node, spare_nodes),
        n_edge=pad_counts(graph.n_edge, spare_edges),
    )

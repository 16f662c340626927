"""Several architecture graphs padded to one of a few declared sizes, for compiled programs.

The only file that imports jraph (archived upstream; its `zero_out_padding` is broken on current jax). A batch is what
`jraph.batch` makes of graphs that `jraph.pad_with_graphs` has padded one by one to the same sizes: every architecture
is two graphs, the real one and its padding, so the rows of the whole batch are (G, N) without a gather.
"""

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

BUCKETS = (64, 128, 256, 384, 512, 768, 1024, 2048, 4096)
"""Default padded sizes N, one row of which is jraph's padding node. DeepNets-1M's largest network has 1,017 nodes."""

_EDGES_A_NODE = 4
"""Padded edges for each padded node; a denser graph doubles them, and programs are then traced once more."""


@flax.struct.dataclass
class GraphBatch:
    """G graphs padded to N rows and E edges each, as arrays alone: names stay with the caller.

    Attributes:
      graph: jraph.GraphsTuple of 2 G graphs with G * N nodes and G * E edges: architecture g is the graphs 2 g (real)
        and 2 g + 1 (padding) and has the rows g * N .. (g + 1) * N. `nodes` is {"type": int32 (G * N,), "shape": int32
        (G * N, 4)}; edges are the real ones of the architecture, then padding, from the first padding row to itself.
      distances: uint8 (G, N, N), [g, i, j] from node i to node j up to the cutoff, 0 for none.
    """

    graph: Any
    distances: Array

    @property
    def num_graphs(self) -> int:
        """G, padding included."""
        return self.distances.shape[0]

    @property
    def width(self) -> int:
        """N, padding included."""
        return self.distances.shape[1]

    @property
    def node_types(self) -> Array:
        """int32 (G, N), `Primitive` of each node."""
        return self.graph.nodes["type"].reshape(self.num_graphs, self.width)

    @property
    def node_shapes(self) -> Array:
        """int32 (G, N, 4), (out, in, height, width) of each node's weight or window."""
        return self.graph.nodes["shape"].reshape(self.num_graphs, self.width, 4)

    @property
    def num_nodes(self) -> Array:
        """int32 (G,), real nodes of each graph; 0 for padded graphs."""
        return self.graph.n_node[::2]

    @property
    def graph_mask(self) -> Array:
        """Bool (G,): real graphs."""
        return self.num_nodes > 0

    @property
    def node_mask(self) -> Array:
        """Bool (G, N): real nodes."""
        return np.arange(self.width)[None, :] < self.num_nodes[:, None]

    def unpad(self, values: Array) -> list[Array]:
        """Values (G, N, ...) of the padded nodes as one array (N, ...) for each real graph."""
        counts = [int(count) for count in np.asarray(self.num_nodes) if count]
        return [values[place, :count] for place, count in enumerate(counts)]


def choose_bucket(graphs: Sequence[ArchGraph], buckets: Sequence[int] = BUCKETS) -> int:
    """Smallest padded size that holds every graph and the padding node.

    Raises:
      ValueError: without graphs or buckets, or naming an architecture above the largest bucket.
    """
    if not graphs:
        raise ValueError("a batch needs at least one graph, got none")
    if not buckets:
        raise ValueError("a batch needs at least one declared bucket, got none")
    largest = max(graphs, key=lambda graph: graph.num_nodes)
    fitting = [bucket for bucket in buckets if largest.num_nodes < bucket]
    if not fitting:
        raise ValueError(
            f"architecture {largest.name!r} with {largest.num_nodes} nodes is above the largest bucket, which holds "
            f"{max(buckets) - 1}; declare a larger one"
        )
    return min(fitting)


def batch_graphs(
    graphs: Sequence[ArchGraph],
    buckets: Sequence[int] = BUCKETS,
    cutoff: int = VIRTUAL_EDGE_CUTOFF,
) -> GraphBatch:
    """Pads graphs to the smallest bucket that holds all of them, and their number to a power of two.

    Args:
      graphs: at least one.
      buckets: padded sizes.
      cutoff: largest distance kept.

    Returns:
      A batch of NumPy arrays.

    Raises:
      ValueError: without graphs, or naming an architecture above the largest bucket.
    """
    nodes = choose_bucket(graphs, buckets)
    count = _power_of_two(len(graphs))
    edges = max(_EDGES_A_NODE * nodes, _power_of_two(max(graph.num_edges for graph in graphs)))
    distances = np.zeros((count, nodes, nodes), np.uint8)
    types, shapes = np.zeros((count, nodes), np.int32), np.zeros((count, nodes, 4), np.int32)
    # Edges within the architecture: padding leads from its first padding row to itself.
    ends = np.zeros((count, edges, 2), np.int32)
    n_node, n_edge = np.zeros((count, 2), np.int32), np.zeros((count, 2), np.int32)
    for place, graph in enumerate(graphs):
        real, links = graph.num_nodes, graph.num_edges
        distances[place, :real, :real] = graph.distances(cutoff)
        types[place, :real], shapes[place, :real] = graph.node_types, graph.node_shapes
        ends[place, :links], ends[place, links:] = graph.edges, real
        n_node[place, 0], n_edge[place, 0] = real, links
    n_node[:, 1], n_edge[:, 1] = nodes - n_node[:, 0], edges - n_edge[:, 0]
    ends += (nodes * np.arange(count, dtype=np.int32))[:, None, None]
    graph = GraphsTuple(
        nodes={"type": types.reshape(-1), "shape": shapes.reshape(-1, 4)},
        edges=None,
        senders=ends[..., 0].reshape(-1),
        receivers=ends[..., 1].reshape(-1),
        n_node=n_node.reshape(-1),
        n_edge=n_edge.reshape(-1),
        globals=None,
    )
    return GraphBatch(graph=graph, distances=distances)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below a count."""
    return 1 << max(count - 1, 0).bit_length()

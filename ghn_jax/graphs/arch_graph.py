"""`ArchGraph`: the computation graph of one neural network architecture, on the host."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from ghn_jax.graphs.distances import shortest_path_distances
from ghn_jax.graphs.param_spec import KeptParam, ParamSpec, Role
from ghn_jax.graphs.summary import graph_table
from ghn_jax.graphs.topology import topological_order
from ghn_jax.graphs.vocabulary import Primitive

MAX_CUTOFF = 250
"""Largest distance that a graph can be asked for: distances are uint8, 0 means no path."""

_PRIMITIVES = tuple(Primitive)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArchGraph:
    """Directed acyclic graph of one architecture, rows in a topological order.

    Build one with `ArchGraph.build`, which sorts; the constructor itself only checks.

    Attributes:
      name: name of the architecture, used in every error.
      node_types: int8 (N,), `Primitive` of each node; row 0 is the only input.
      node_shapes: int32 (N, 4), (out, in per group, kernel height, kernel width) of the node's weight or pooling
        window; a row of zeros is "no shape".
      edges: int32 (E, 2), rows (from, to) with from < to, sorted, without duplicates.
      params: the tensors that the architecture needs, in any order.
      kept: leaves of a traced model that are not predicted.
    """

    name: str
    node_types: np.ndarray
    node_shapes: np.ndarray
    edges: np.ndarray
    params: tuple[ParamSpec, ...]
    kept: tuple[KeptParam, ...] = ()

    def __post_init__(self) -> None:
        _check(self)
        for array in (self.node_types, self.node_shapes, self.edges):
            array.setflags(write=False)

    @classmethod
    def build(
        cls,
        name: str,
        node_types: Sequence[int] | np.ndarray,
        node_shapes: Sequence[Sequence[int]] | np.ndarray,
        edges: Sequence[tuple[int, int]] | np.ndarray,
        params: Sequence[ParamSpec],
        *,
        kept: Sequence[KeptParam] = (),
    ) -> "ArchGraph":
        """Sorts nodes topologically (the given order wherever it is one already) and renumbers edges and specs.

        Raises:
          ValueError: for a cycle, a node off every path from the input to the last node, an index out of range, more
            than one input, an unknown type or a spec that contradicts its node; names the node and the architecture.
        """
        types = np.array(node_types, np.int64)
        shapes = np.array(node_shapes, np.int32)
        pairs = np.array(edges, np.int32)
        pairs = pairs if pairs.size else pairs.reshape(0, 2)
        _check_indices(name, types, pairs, params)
        types = types.astype(np.int8)
        if len(pairs) and not (pairs[:, 0] < pairs[:, 1]).all():
            order = topological_order(pairs, len(types), name)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order), dtype=order.dtype)
            types, pairs = types[order], rank[pairs].astype(np.int32)
            if len(shapes) == len(order):
                shapes = shapes[order]
            params = [dataclasses.replace(p, node=int(rank[p.node])) for p in params]
        if len(pairs):
            keys = np.unique(pairs[:, 0].astype(np.int64) * len(types) + pairs[:, 1])
            pairs = np.stack([keys // len(types), keys % len(types)], axis=1).astype(np.int32)
        return cls(name, types, shapes, pairs, tuple(params), tuple(kept))

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.node_types)

    @property
    def num_edges(self) -> int:
        """E, virtual edges not counted."""
        return len(self.edges)

    @property
    def num_params(self) -> int:
        """Number of predicted weights."""
        return sum(spec.size for spec in self.params)

    @property
    def kept_share(self) -> float:
        """Share of the model's weights that is not predicted, 0 to 1."""
        kept = sum(leaf.size for leaf in self.kept)
        return kept / (kept + self.num_params) if kept else 0.0

    @functools.cached_property
    def params_by_path(self) -> dict[tuple[str, ...], ParamSpec]:
        """Specs by path (and index, where a leaf is stacked: the last one wins)."""
        return {spec.path: spec for spec in self.params}

    @property
    def num_classes(self) -> int | None:
        """Classes that the classifier tells apart; None if the graph has no classifier."""
        for spec in reversed(self.params):
            if spec.role in (Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS):
                return spec.canonical_shape[0]
        return None

    def distances(self, cutoff: int = MAX_CUTOFF) -> np.ndarray:
        """Shortest-path distances along the edges: uint8 (N, N), [i, j] from i to j, 0 for none or above `cutoff`.

        Label 1 is a real edge, 2.. are the virtual edges of paper Eq. 4 (there `cutoff` is 50).
        """
        if not 1 <= cutoff <= MAX_CUTOFF:
            raise ValueError(f"cutoff must be between 1 and {MAX_CUTOFF}, got {cutoff}")
        return shortest_path_distances(self.edges, self.num_nodes, cutoff)

    def __repr__(self) -> str:
        return f"ArchGraph({self.name!r}, N={self.num_nodes}, E={self.num_edges}, weights={self.num_params:,})"

    def __str__(self) -> str:
        return graph_table(self)


def _check_indices(name: str, types: np.ndarray, edges: np.ndarray, params: Sequence[ParamSpec]) -> None:
    """Raises ValueError for unknown types and for edges or specs that point outside the graph."""
    count = len(types)
    if count == 0:
        raise ValueError(f"architecture {name!r} has no nodes")
    unknown = np.flatnonzero((types < 0) | (types >= len(Primitive)))
    if len(unknown):
        raise ValueError(f"architecture {name!r}: node {unknown[0]} has the unknown type {types[unknown[0]]}")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"architecture {name!r}: edges must be rows (from, to), got an array of shape {edges.shape}")
    if len(edges):
        outside = np.flatnonzero(((edges < 0) | (edges >= count)).any(axis=1))
        if len(outside):
            raise ValueError(
                f"architecture {name!r}: edge {tuple(edges[outside[0]].tolist())} leaves the range of its {count} nodes"
            )
        loops = np.flatnonzero(edges[:, 0] == edges[:, 1])
        if len(loops):
            raise ValueError(f"architecture {name!r}: cycle, node {edges[loops[0], 0]} is its own successor")
    nodes = [spec.node for spec in params]
    if nodes and not (min(nodes) >= 0 and max(nodes) < count):
        spec = next(spec for spec in params if not 0 <= spec.node < count)
        raise ValueError(
            f"architecture {name!r}: parameter {spec.name!r} points to node {spec.node}, which is out of range"
        )


def _check(graph: ArchGraph) -> None:
    """Checks everything that `ArchGraph` promises."""
    name, types, edges = graph.name, graph.node_types, graph.edges
    _check_indices(name, types, edges, graph.params)
    count = len(types)
    if graph.node_shapes.shape != (count, 4):
        raise ValueError(f"architecture {name!r}: node_shapes must be ({count}, 4), got {graph.node_shapes.shape}")
    if len(edges) and not (edges[:, 0] < edges[:, 1]).all():
        raise ValueError(f"architecture {name!r}: rows are not in topological order; use ArchGraph.build")
    inputs = np.flatnonzero(types == Primitive.INPUT)
    if len(inputs) != 1 or inputs[0] != 0:
        raise ValueError(
            f"architecture {name!r}: the first node must be its only input, found inputs at {inputs.tolist()}"
        )
    _check_paths(name, types, edges)
    primitives = [_PRIMITIVES[kind] for kind in types.tolist()]
    for spec in graph.params:
        spec.check(primitives[spec.node], name)


def _check_paths(name: str, types: np.ndarray, edges: np.ndarray) -> None:
    """Every node but a position table follows from the input; every node leads to the last one."""
    count = len(types)
    has_successor = np.zeros(count, bool)
    has_successor[edges[:, 0]] = True
    has_successor[-1] = True
    has_predecessor = np.zeros(count, bool)
    has_predecessor[edges[:, 1]] = True
    has_predecessor |= (types == Primitive.INPUT) | (types == Primitive.POS_ENC)
    # In a DAG whose only sink is the last node and whose only sources are the input and position tables,
    # every node lies on a path: no search is needed.
    for mask, what in (
        (has_successor, "does not reach the last node"),
        (has_predecessor, "has no path from the input"),
    ):
        bad = np.flatnonzero(~mask)
        if len(bad):
            node = bad[0]
            raise ValueError(f"architecture {name!r}: node {node} ({Primitive(int(types[node])).label}) {what}")

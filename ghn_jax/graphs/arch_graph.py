"""`ArchGraph`: the computation graph of one neural network architecture, on the host."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from ghn_jax.fields import Range, check_number
from ghn_jax.graphs.checks import check_graph, check_indices, check_paths_of_leaves, whole_numbers
from ghn_jax.graphs.dag import shortest_path_distances, topological_order
from ghn_jax.graphs.param_spec import KeptParam, ParamSpec, Role
from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.text_tables import aligned

MAX_CUTOFF = 250
"""Largest distance that a graph can be asked for: distances are uint8, 0 means no path."""


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
        check_graph(self.name, self.node_types, self.node_shapes, self.edges, self.params)
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
            than one input, an unknown type, a negative shape, a spec that contradicts its node or another one, or
            what are no whole numbers; names the node and the architecture.
        """
        types = whole_numbers(name, "node_types", node_types)
        shapes = whole_numbers(name, "node_shapes", node_shapes).astype(np.int32)
        pairs = whole_numbers(name, "edges", edges).astype(np.int32)
        pairs = pairs if pairs.size else pairs.reshape(0, 2)
        check_indices(name, types, pairs, params)
        check_paths_of_leaves(name, params)
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
        check_number("cutoff", cutoff, Range(1, MAX_CUTOFF))
        return shortest_path_distances(self.edges, self.num_nodes, cutoff)

    def __repr__(self) -> str:
        return f"ArchGraph({self.name!r}, N={self.num_nodes}, E={self.num_edges}, weights={self.num_params:,})"

    def __str__(self) -> str:
        return _table(self)


def _table(graph: ArchGraph) -> str:
    """One line a node (row, primitive, shape, predecessors, parameters) under a title; then what is not predicted."""
    predecessors = collections.defaultdict(list)
    for source, target in graph.edges.tolist():
        predecessors[target].append(source)
    names = collections.defaultdict(list)
    for spec in graph.params:
        names[spec.node].append(spec.name)
    rows = [("node", "primitive", "shape (O, I, H, W)", "predecessors", "parameters")]
    for node, (kind, shape) in enumerate(zip(graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True)):
        rows.append(
            (
                str(node),
                Primitive(kind).label,
                " x ".join(map(str, shape)) if any(shape) else "-",
                " ".join(map(str, predecessors[node])) or "-",
                ", ".join(names[node]) or "-",
            )
        )
    lines = aligned(rows, left=5)
    title = f"{graph.name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_params:,} weights"
    if graph.kept:
        lines.append(f"not predicted: {graph.kept_share:.2%} of the weights")
        lines += [f"  {leaf.name} ({' x '.join(map(str, leaf.shape))}): {leaf.reason}" for leaf in graph.kept]
    return "\n".join([title, *lines])

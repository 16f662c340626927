"""Isomorphism of architecture graphs, decided by networkx (VF2): independent of the package's own hash."""

from collections.abc import Hashable, Iterable

import networkx as nx

from ghn_jax.graphs import ArchGraph

Label = tuple[int, tuple[int, ...]]


def labels(graph: ArchGraph) -> list[Label]:
    """Type and shape of every node."""
    return [
        (kind, tuple(shape)) for kind, shape in zip(graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True)
    ]


def census(graph: ArchGraph) -> Hashable:
    """All nodes, and all edges, by labels: equal for isomorphic graphs, and mostly different for others."""
    own = labels(graph)
    return tuple(sorted(own)), tuple(sorted((own[source], own[target]) for source, target in graph.edges.tolist()))


def isomorphic(left: ArchGraph, right: ArchGraph) -> bool:
    """Whether a renaming of nodes that keeps types and shapes turns one into the other."""
    if census(left) != census(right):
        return False
    both = []
    for graph in (left, right):
        directed = nx.DiGraph(graph.edges.tolist())
        directed.add_nodes_from((node, {"label": label}) for node, label in enumerate(labels(graph)))
        both.append(directed)
    return nx.is_isomorphic(*both, node_match=lambda one, other: one["label"] == other["label"])


class Collection:
    """Graphs that others are looked up in."""

    def __init__(self, graphs: Iterable[ArchGraph]) -> None:
        self._by_census: dict[Hashable, list[ArchGraph]] = {}
        for graph in graphs:
            self._by_census.setdefault(census(graph), []).append(graph)

    def find(self, graph: ArchGraph) -> str | None:
        """Name of a graph of the collection that is isomorphic to this one."""
        near = self._by_census.get(census(graph), [])
        return next((other.name for other in near if isomorphic(graph, other)), None)

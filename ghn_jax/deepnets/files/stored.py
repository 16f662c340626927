"""Graphs as dataset files store them: labels cell by cell, distances in an order of their own."""

import collections
import dataclasses

import numpy as np

from ghn_jax.deepnets.files.names import release_name
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import NetworkGraphBuilder, build_network
from ghn_jax.graphs.arch_graph import MAX_CUTOFF, ArchGraph, shortest_path_distances
from ghn_jax.graphs.param_spec import ParamSpec, Role
from ghn_jax.graphs.vocabulary import POOLS, Primitive

Labels = tuple[tuple[str, int, str], ...]
"""(type, cell, op name) of each node; types as in the files, where ``conv_1x1`` stands for 1x1 kernels."""

_LABELS = tuple(primitive.label for primitive in Primitive)

_SUMMANDS = np.random.default_rng(0).integers(2**63, size=(2, 256), dtype=np.uint64)
"""Numbers of distances before and behind a node: sums of them tell apart how often each distance occurs."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredGraph:
    """The pair of labels and distances of one network as it stands in a file, row by row.

    The two often disagree on which row is which node, so this need not be a graph of any network. It offers what a
    GHN reads of an `ArchGraph`: `node_types`, `node_shapes`, `num_nodes`, `num_edges`, `edges`, `params`, `distances`.

    Attributes:
      name: of the architecture.
      labels: (type, cell, op name) of each row.
      all_distances: uint8 (N, N) as stored, 0 where there is no path.
      node_types: int8 (N,), `Primitive` of each row's label.
      node_shapes: int32 (N, 4), shape that belongs to each row's label, as in `ArchGraph`.
      params: tensors of the network; each points to the row that has its label.
    """

    name: str
    labels: Labels
    all_distances: np.ndarray
    node_types: np.ndarray
    node_shapes: np.ndarray
    params: tuple[ParamSpec, ...]

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def num_edges(self) -> int:
        """E."""
        return int((self.all_distances == 1).sum())

    @property
    def edges(self) -> np.ndarray:
        """int32 (E, 2): pairs of rows at distance 1, sorted."""
        return np.argwhere(self.all_distances == 1).astype(np.int32)

    def distances(self, cutoff: int = MAX_CUTOFF) -> np.ndarray:
        """uint8 (N, N), as `ArchGraph.distances`."""
        if not 1 <= cutoff <= MAX_CUTOFF:
            raise ValueError(f"cutoff must be between 1 and {MAX_CUTOFF}, got {cutoff}")
        return np.where(self.all_distances <= cutoff, self.all_distances, 0).astype(np.uint8)


def labelled_graph(args: NetworkArgs, name: str) -> tuple[ArchGraph, Labels]:
    """The graph of a network and the labels that a file gives its nodes, in the same order."""
    build = build_network(args, name)
    graph = build.finish()
    return graph, _labels(graph, build)


def attach_labels(
    args: NetworkArgs, name: str, labels: Labels, distances: np.ndarray, *, compare: bool = False
) -> StoredGraph:
    """Finds the shape and the tensors of each stored label among those of the network.

    Args:
      args: arguments of the network.
      name: of the architecture.
      labels: of each row.
      distances: uint8 (N, N).
      compare: whether labels and distances must be those of the network's graph, each for itself: which row is which
        node may differ, as it does in the release's files (docs/method.md, section 10).

    Raises:
      ValueError: if labels name a parameter that the network does not have, or leave one out, or if what is compared
        differs.
    """
    graph, own = labelled_graph(args, name)
    rows = {label[1:]: row for row, label in enumerate(labels) if _is_parameter(label)}
    place: dict[int, int] = {}
    for node, label in enumerate(own):
        if _is_parameter(label):
            if label[1:] not in rows:
                raise ValueError(f"architecture {name!r}: no stored node is parameter {label[2]!r} of cell {label[1]}")
            place[node] = rows.pop(label[1:])
    if rows:
        cell, parameter = next(iter(rows))
        raise ValueError(f"architecture {name!r}: the network has no parameter {parameter!r} in cell {cell}")
    if compare:
        _compare(graph, own, labels, distances)
    types = np.array([primitive_of(label[0]) for label in labels], np.int8)
    shapes = np.zeros((len(labels), 4), np.int32)
    shapes[np.isin(types, [int(p) for p in POOLS])] = (1, 1, 3, 3)
    for node, row in place.items():
        shapes[row] = graph.node_shapes[node]
    params = tuple(dataclasses.replace(spec, node=place[spec.node]) for spec in graph.params)
    return StoredGraph(name, labels, distances, types, shapes, params)


def compared_graph(args: NetworkArgs, name: str, labels: Labels, distances: np.ndarray) -> ArchGraph:
    """The graph of a network; raises ValueError if the stored labels or distances differ, as `attach_labels` does."""
    graph, own = labelled_graph(args, name)
    _compare(graph, own, labels, distances)
    return graph


def _compare(graph: ArchGraph, own: Labels, labels: Labels, distances: np.ndarray) -> None:
    """Raises ValueError if stored labels or distances are not those of a graph, up to the order of the nodes.

    Of nodes without parameters, the type and the name are compared; their cell is a matter of taste. Distances are
    compared with those along their own edges, hence every single one, and with the graph's by what they hold of each
    node: how many nodes lie at each distance before and behind it.
    """
    problem = ""
    ours, theirs = (collections.Counter(map(_compared, some)) for some in (own, labels))
    cells = [cell for _, cell, _ in labels]
    edges = np.argwhere(distances == 1).astype(np.int32)
    if ours != theirs:
        label = next(iter((ours - theirs) or (theirs - ours)))
        problem = f"{len(labels)} labels are stored, its graph has {graph.num_nodes} others, such as {label}"
    elif cells != sorted(cells):
        problem = "the stored labels do not come cell by cell"
    elif (edges[:, 0] >= edges[:, 1]).any():
        problem = "the stored edges do not lead from earlier to later nodes"
    elif not np.array_equal(shortest_path_distances(edges, len(labels), MAX_CUTOFF), distances):
        problem = "the stored distances are not those along their own edges"
    elif not np.array_equal(_surroundings(distances), _surroundings(graph.distances())):
        problem = "the stored edges are not those of its graph"
    if problem:
        raise ValueError(f"architecture {graph.name!r}: {problem}")


def _surroundings(distances: np.ndarray) -> np.ndarray:
    """For each node a number of how many nodes lie at each distance behind it and before it, sorted."""
    behind, before = (_SUMMANDS[axis][distances].sum(axis) for axis in (1, 0))  # sums wrap around
    return np.sort(behind + before)


def labels_agree(args: NetworkArgs, name: str, labels: Labels, distances: np.ndarray) -> bool:
    """Whether stored labels and distances describe the network: whether its graph's nodes can be put into their order.

    Compares by colour refinement, starting from the labels: parameters are unique by name, and nodes without one that
    remain alike (pools side by side) may change places.
    """
    graph, own = labelled_graph(args, name)
    if len(labels) != graph.num_nodes:
        return False
    palette: dict[object, int] = {}
    ours = [palette.setdefault(_known(label), len(palette)) for label in own]
    theirs = [palette.setdefault(_known(label), len(palette)) for label in labels]
    edges = np.argwhere(distances == 1)
    kinds = 0
    while sorted(ours) == sorted(theirs):
        if len(set(ours)) == kinds:
            return True
        kinds = len(set(ours))
        ours, theirs = _refine(ours, graph.edges, palette), _refine(theirs, edges, palette)
    return False


def primitive_of(label: str) -> Primitive:
    """Primitive of a type in a file; raises ValueError naming an unknown one."""
    return Primitive.CONV if label == "conv_1x1" else Primitive.from_label(label)


def _labels(graph: ArchGraph, build: NetworkGraphBuilder) -> Labels:
    types = [_LABELS[kind] for kind in graph.node_types.tolist()]
    names = list(types)
    for spec in graph.params:
        if spec.role is not Role.NORM_BIAS:
            names[spec.node] = release_name(spec.path[1:] if spec.path[0].startswith("cells_") else spec.path)
    for node in np.flatnonzero((graph.node_types == Primitive.CONV) & (graph.node_shapes[:, 2:] == 1).all(axis=1)):
        types[node] = "conv_1x1"
    return tuple(zip(types, build.cells, names, strict=True))


def _is_parameter(label: tuple[str, int, str]) -> bool:
    return label[2].endswith((".weight", ".bias"))


def _known(label: tuple[str, int, str]) -> tuple[str, int, str] | str:
    """What must agree of a label: of nodes without parameters only the type (their cell is a matter of taste)."""
    return label if _is_parameter(label) else label[0]


def _compared(label: tuple[str, int, str]) -> tuple[str | int, ...]:
    """As `_known`, for files that keep names of nodes without parameters too."""
    return label if _is_parameter(label) else (label[0], label[2])


def _refine(colours: list[int], edges: np.ndarray, palette: dict[object, int]) -> list[int]:
    before: list[list[int]] = [[] for _ in colours]
    after: list[list[int]] = [[] for _ in colours]
    for source, target in edges.tolist():
        before[target].append(colours[source])
        after[source].append(colours[target])
    keys = [(c, tuple(sorted(b)), tuple(sorted(a))) for c, b, a in zip(colours, before, after, strict=True)]
    return [palette.setdefault(key, len(palette)) for key in keys]

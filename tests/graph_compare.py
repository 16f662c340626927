"""Compares an `ArchGraph` with a graph of graphs.json.gz, up to the order of nodes."""

from collections.abc import Hashable, Sequence
from typing import Any

import networkx
import numpy as np
from networkx.algorithms.isomorphism import DiGraphMatcher

from ghn_jax.deepnets.files.names import flax_path
from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role

Edge = tuple[int, int]
_NODES_LISTED = 8


def specs_by_path(graph: ArchGraph) -> dict[tuple[str, ...], ParamSpec]:
    """Specs by path; of a stacked leaf the last one."""
    return {spec.path: spec for spec in graph.params}


def assert_same_graph(graph: ArchGraph, fixture: dict[str, Any], names: bool = True, distances: bool = True) -> None:
    """Fails unless both graphs are isomorphic with equal types, shapes, predicted tensors and distances.

    Args:
      graph: what we built.
      fixture: one entry of graphs.json.gz.
      names: whether parameter paths must agree, too (release names as `names.flax_path` maps them).
      distances: whether the totals of the distances with cut-off 50 must agree, too.
    """
    ours, theirs = _graph_colours(graph, names), _fixture_colours(fixture, names)
    _assert_same_counts(ours, theirs, graph.name)
    our_edges = [(int(a), int(b)) for a, b in graph.edges]
    their_edges = [(int(a), int(b)) for a, b in fixture["edges"]]
    assert len(our_edges) == len(their_edges), f"{graph.name}: {len(our_edges)} edges, expected {len(their_edges)}"
    assert_isomorphic(ours, our_edges, theirs, their_edges, graph.name)
    if distances:
        found = graph.distances(50).astype(np.int64)
        assert (int(found.sum()), int(found.max()), int((found > 0).sum())) == (
            fixture["distance_sum"],
            fixture["distance_max"],
            fixture["distance_pairs"],
        ), f"{graph.name}: distances differ"


def assert_isomorphic(
    colours: Sequence[Hashable],
    edges: Sequence[Edge],
    other_colours: Sequence[Hashable],
    other_edges: Sequence[Edge],
    name: str,
) -> None:
    """Fails unless a bijection of nodes keeps colours and edges."""
    palette: dict[Hashable, int] = {}
    ours = [palette.setdefault(("start", c), len(palette)) for c in colours]
    theirs = [palette.setdefault(("start", c), len(palette)) for c in other_colours]
    kinds = 0
    while len(set(ours)) > kinds:  # refine by neighbours until nothing splits any more
        kinds = len(set(ours))
        ours, theirs = _refine(ours, edges, palette), _refine(theirs, other_edges, palette)
        assert sorted(ours) == sorted(theirs), f"{name}: nodes of equal kind have different surroundings"
    if kinds == len(ours):  # every node stands alone: the bijection is given
        place = {colour: node for node, colour in enumerate(theirs)}
        mapped = {(place[ours[a]], place[ours[b]]) for a, b in edges}
        assert mapped == set(other_edges), f"{name}: edges differ"
        return
    matcher = DiGraphMatcher(
        _networkx(ours, edges), _networkx(theirs, other_edges), lambda a, b: a["colour"] == b["colour"]
    )
    assert matcher.is_isomorphic(), f"{name}: no isomorphism"


def _refine(colours: list[int], edges: Sequence[Edge], palette: dict[Hashable, int]) -> list[int]:
    before: list[list[int]] = [[] for _ in colours]
    after: list[list[int]] = [[] for _ in colours]
    for source, target in edges:
        before[target].append(colours[source])
        after[source].append(colours[target])
    keys = [(c, tuple(sorted(b)), tuple(sorted(a))) for c, b, a in zip(colours, before, after, strict=True)]
    return [palette.setdefault(key, len(palette)) for key in keys]


def _networkx(colours: list[int], edges: Sequence[Edge]) -> networkx.DiGraph:
    graph = networkx.DiGraph()
    graph.add_nodes_from((node, {"colour": colour}) for node, colour in enumerate(colours))
    graph.add_edges_from(edges)
    return graph


def _graph_colours(graph: ArchGraph, names: bool) -> list[Hashable]:
    specs: list[list[tuple[Any, ...]]] = [[] for _ in range(graph.num_nodes)]
    for spec in graph.params:
        path = spec.path if names else ()
        specs[spec.node].append((spec.role.value, spec.canonical_shape, path))
    return [
        (Primitive(kind).label, tuple(shape), tuple(sorted(found)))
        for kind, shape, found in zip(graph.node_types.tolist(), graph.node_shapes.tolist(), specs, strict=True)
    ]


def _fixture_colours(fixture: dict[str, Any], names: bool) -> list[Hashable]:
    info = {row[0]: row for cell in fixture["node_info"] for row in cell}
    colours: list[Hashable] = []
    for node, (kind, shape) in enumerate(zip(fixture["node_type"], fixture["param_shapes"], strict=True)):
        label = kind if isinstance(kind, str) else Primitive(kind).label
        full = tuple(_canonical(shape)) if shape else (0, 0, 0, 0)
        specs = _fixture_specs(label, shape, full, info.get(node), names)
        colours.append((label, full, tuple(sorted(specs))))
    return colours


def _fixture_specs(
    label: str, shape: list[int] | None, full: tuple[int, ...], row: list[Any] | None, names: bool
) -> list[tuple[Any, ...]]:
    """(role, canonical shape, path) of each tensor that the node predicts."""
    if label in ("max_pool", "avg_pool") or shape is None or row is None:
        return []
    path = flax_path(row[1], len(shape)) if names else ()
    if label in ("bn", "ln"):
        bias = (*path[:-1], "bias") if names else ()
        return [(Role.SCALE.value, full, path), (Role.NORM_BIAS.value, full, bias)]
    if label == "bias":
        return [((Role.CLASSIFIER_BIAS if row[5] else Role.BIAS).value, full, path)]
    if label == "pos_enc":
        return [(Role.POSITION.value, full, path)]
    return [((Role.CLASSIFIER_KERNEL if row[4] else Role.KERNEL).value, full, path)]


def _canonical(shape: list[int]) -> list[int]:
    return list(shape) + [1] * (4 - len(shape))


def _assert_same_counts(ours: list[Hashable], theirs: list[Hashable], name: str) -> None:
    extra, missing = list(ours), []
    for colour in theirs:
        if colour in extra:
            extra.remove(colour)
        else:
            missing.append(colour)
    report = f"{name}: unexpected nodes {extra[:_NODES_LISTED]}, missing nodes {missing[:_NODES_LISTED]}"
    assert not extra, report
    assert not missing, report

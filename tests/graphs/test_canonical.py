"""The canonical hash: equal for isomorphic graphs, different for nearly all others."""

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isomorphism import isomorphic
from small_graphs import mixed_graph, random_graph

from ghn_jax.deepnets import sample_architecture
from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.graphs.canonical import canonical_hash, signature

NO_SHAPE = (0, 0, 0, 0)


def shuffled(graph: ArchGraph, rng: random.Random) -> ArchGraph:
    """The same graph, its nodes in another topological order: the input stays first, the output last."""
    waiting = np.bincount(graph.edges[:, 1], minlength=graph.num_nodes)
    free = [node for node in range(1, graph.num_nodes) if waiting[node] == 0]
    order, node = [], 0
    while True:
        order.append(node)
        for target in graph.edges[graph.edges[:, 0] == node, 1].tolist():
            waiting[target] -= 1
            if waiting[target] == 0:
                free.append(target)
        if not free:
            break
        node = free.pop(rng.randrange(len(free)))
    rank = np.argsort(order)
    return ArchGraph.build(
        "shuffled", graph.node_types[order], graph.node_shapes[order], rank[graph.edges].tolist(), []
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_matter(seed: int, nodes: int, rng: random.Random) -> None:
    graph = random_graph(seed, nodes)
    other = shuffled(graph, rng)
    assert canonical_hash(other) == canonical_hash(graph)
    assert signature(other) == signature(graph)


@pytest.mark.parametrize("split", ["train", "dense", "bnfree"])
def test_the_order_of_nodes_of_whole_networks_does_not_matter(split: str) -> None:
    for index in range(5):
        graph = sample_architecture(split, index).graph()
        others = [shuffled(graph, random.Random(seed)) for seed in range(3)]
        assert any((other.node_types != graph.node_types).any() for other in others)
        assert {canonical_hash(other) for other in others} == {canonical_hash(graph)}


def test_equal_hashes_are_isomorphic_graphs() -> None:
    """On small graphs of few kinds of nodes refinement makes no error: it agrees with an exact comparison."""
    graphs = []
    for seed in range(80):
        graph = random_graph(seed, 4 + seed % 4)
        types = np.where(np.arange(graph.num_nodes) % 3 == 1, Primitive.BN, graph.node_types).astype(np.int8)
        graphs.append(changed(graph, types=types, shapes=np.zeros_like(graph.node_shapes)))
    pairs = list(itertools.combinations(graphs, 2))
    exact = [isomorphic(*pair) for pair in pairs]
    assert 30 < sum(exact) < len(pairs) / 2
    assert [canonical_hash(left) == canonical_hash(right) for left, right in pairs] == exact


def changed(graph: ArchGraph, **fields) -> ArchGraph:
    parts = {"types": graph.node_types.copy(), "shapes": graph.node_shapes.copy(), "edges": graph.edges.copy()}
    parts.update(fields)
    return ArchGraph(graph.name, parts["types"], parts["shapes"], parts["edges"], ())


def test_every_node_and_edge_counts() -> None:
    graph = mixed_graph()
    known = {canonical_hash(graph)}
    for node in range(1, graph.num_nodes):
        types, shapes = graph.node_types.copy(), graph.node_shapes.copy()
        types[node] = Primitive.CSE if types[node] != Primitive.POS_ENC else Primitive.POS_ENC
        shapes[node, 2] += 1
        known.add(canonical_hash(changed(graph, types=types)))
        known.add(canonical_hash(changed(graph, shapes=shapes)))
    assert len(known) == 2 * graph.num_nodes - 2  # the position table keeps its type: no other may lack predecessors
    missing = {tuple(edge) for edge in graph.edges.tolist()}
    for edge in sorted({(i, j) for j in range(graph.num_nodes) for i in range(j)} - missing):
        more = np.array(sorted([*missing, edge]), np.int32)
        known.add(canonical_hash(changed(graph, edges=more)))
    count = graph.num_nodes
    assert len(known) == 2 * count - 2 + count * (count - 1) // 2 - graph.num_edges


def test_it_is_the_same_number_everywhere() -> None:
    """In other processes (whose text hashes differ), on other machines, in other versions of Python."""
    expected = 12_064_228_920_645_947_984
    assert canonical_hash(mixed_graph()) == expected
    code = "from small_graphs import mixed_graph as m; from ghn_jax.graphs.canonical import canonical_hash as h; "
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code} print(h(m()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == expected


def test_refinement_errs_by_taking_different_graphs_for_equal() -> None:
    """One ring of six against two rings of three, every arc from one layer to the next: the known weakness."""

    def rings(arcs: list[tuple[int, int]]) -> ArchGraph:
        types = [Primitive.INPUT] + [Primitive.CONV] * 6 + [Primitive.BN] * 6 + [Primitive.CONCAT]
        edges = [(0, 1 + i) for i in range(6)] + [(7 + i, 13) for i in range(6)]
        edges += [(1 + i, 7 + j) for i, j in arcs]
        return ArchGraph.build("rings", types, [NO_SHAPE] * 14, edges, [])

    one = rings([(i, (i + step) % 6) for i in range(6) for step in (0, 1)])
    two = rings([(i, i // 3 * 3 + (i + step) % 3) for i in range(6) for step in (0, 1)])
    assert not isomorphic(one, two)
    assert canonical_hash(one) == canonical_hash(two)

from typing import Any

import jax
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import mixed_graph, random_graph

from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.graphs.batching import BUCKETS, GraphsTuple, batch_graphs, choose_bucket

GRAPHS = [random_graph(0, 12), mixed_graph(), random_graph(1, 1), random_graph(2, 30)]


def test_a_batch_is_jraphs_batch_of_graphs_that_jraph_padded() -> None:
    batch = batch_graphs(GRAPHS)
    edges = len(batch.graph.senders) // batch.num_graphs
    padded = [jraph.pad_with_graphs(graphs_tuple(graph), batch.width, edges, 2) for graph in GRAPHS]
    jax.tree.map(np.testing.assert_array_equal, batch.graph, jraph.batch(padded))
    for graph, own in zip(GRAPHS, padded, strict=True):
        real_nodes = np.asarray(jraph.get_node_padding_mask(own))
        np.testing.assert_array_equal(real_nodes, np.arange(batch.width) < graph.num_nodes)
        real_edges = np.asarray(jraph.get_edge_padding_mask(own))
        np.testing.assert_array_equal(real_edges, np.arange(edges) < graph.num_edges)


def graphs_tuple(graph: ArchGraph) -> Any:
    return GraphsTuple(
        nodes={"type": graph.node_types.astype(np.int32), "shape": graph.node_shapes.astype(np.int32)},
        edges=None,
        senders=graph.edges[:, 0].astype(np.int32),
        receivers=graph.edges[:, 1].astype(np.int32),
        n_node=np.array([graph.num_nodes], np.int32),
        n_edge=np.array([graph.num_edges], np.int32),
        globals=None,
    )


def test_types_edges_and_distances_are_those_of_the_graphs() -> None:
    batch = batch_graphs(GRAPHS, cutoff=3)
    assert batch.distances.dtype == np.uint8
    for place, graph in enumerate(GRAPHS):
        nodes = graph.num_nodes
        np.testing.assert_array_equal(batch.node_types[place, :nodes], graph.node_types)
        np.testing.assert_array_equal(batch.node_shapes[place, :nodes], graph.node_shapes)
        assert not batch.node_types[place, nodes:].any()
        assert not batch.node_shapes[place, nodes:].any()
        np.testing.assert_array_equal(batch.distances[place, :nodes, :nodes], graph.distances(3))
        assert not batch.distances[place, nodes:].any()
        assert not batch.distances[place, :, nodes:].any()
    unbatched = jraph.unbatch_np(batch.graph)
    for graph, real, padding in zip(GRAPHS, unbatched[::2], unbatched[1::2], strict=True):
        senders, receivers = np.asarray(real.senders), np.asarray(real.receivers)
        np.testing.assert_array_equal(np.stack([senders, receivers], 1), graph.edges)
        assert int(padding.n_node[0]) == batch.width - graph.num_nodes
        # Its first row, in its own numbering.
        assert not np.asarray(padding.senders, np.int32).any()
        assert not np.asarray(padding.receivers, np.int32).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_masks_and_sizes(sizes: list[int]) -> None:
    graphs = [random_graph(seed, size) for seed, size in enumerate(sizes)]
    batch = batch_graphs(graphs)
    assert batch.width == 64
    assert batch.num_graphs in (1, 2, 4, 8, 16)
    assert batch.num_graphs < 2 * len(graphs)
    np.testing.assert_array_equal(batch.node_mask.sum(1)[: len(sizes)], sizes)
    assert batch.node_mask.sum() == sum(sizes)
    assert batch.graph_mask.sum() == len(sizes)
    assert [len(part) for part in batch.unpad(batch.node_mask)] == sizes
    assert int(batch.graph.n_node.sum()) == batch.num_graphs * batch.width == len(batch.graph.nodes["type"])
    assert int(batch.graph.n_edge.sum()) == len(batch.graph.senders) == len(batch.graph.receivers)


def test_a_batch_is_a_pytree_whose_structure_knows_no_names() -> None:
    first, second = (batch_graphs([random_graph(seed, 10, name)]) for seed, name in ((0, "a"), (1, "b")))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, second)


def test_the_smallest_bucket_that_holds_all_and_a_padding_node_is_chosen() -> None:
    assert choose_bucket([random_graph(0, 63)]) == BUCKETS[0]
    assert choose_bucket([random_graph(0, 64), random_graph(1, 3)]) == BUCKETS[1]
    assert choose_bucket([random_graph(0, 5)], (50, 6)) == 6


def test_above_the_largest_bucket() -> None:
    with pytest.raises(ValueError, match=r"architecture 'huge' with 40 nodes.*largest bucket, which holds 39"):
        batch_graphs([random_graph(0, 10), random_graph(1, 40, "huge")], (20, 40))


def test_edges_never_refuse_a_graph_and_only_dense_ones_change_the_sizes() -> None:
    for nodes in (8, 14, 30, 63):
        edges = [(a, b) for b in range(nodes) for a in range(b)]
        types = [Primitive.INPUT] + [Primitive.SUM] * (nodes - 1)
        dense = ArchGraph.build("dense", types, np.zeros((nodes, 4)), edges, [])
        batch = batch_graphs([dense, random_graph(0, 5)])
        padded_edges = len(batch.graph.senders) // 2
        assert padded_edges == max(4 * batch.width, 1 << (len(edges) - 1).bit_length())
        np.testing.assert_array_equal(
            batch.graph.n_edge, [len(edges), padded_edges - len(edges), *batch.graph.n_edge[2:]]
        )
    assert len({len(batch_graphs([random_graph(seed, 60)]).graph.senders) for seed in range(20)}) == 1


def test_empty_batches() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        batch_graphs([])
    with pytest.raises(ValueError, match="at least one declared bucket"):
        batch_graphs(GRAPHS, ())

import jax
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import mixed_graph, random_graph

from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.graphs.batching import BUCKETS, Bucket, batch_graphs, choose_bucket

GRAPHS = [random_graph(0, 12), mixed_graph(), random_graph(1, 1), random_graph(2, 30)]


def test_rows_lead_back_to_architecture_and_node() -> None:
    batch = batch_graphs(GRAPHS)
    located = [batch.locate(row) for row in range(sum(graph.num_nodes for graph in GRAPHS))]
    assert located == [(place, node) for place, graph in enumerate(GRAPHS) for node in range(graph.num_nodes)]
    for place, graph in enumerate(GRAPHS):
        for node in range(graph.num_nodes):
            assert batch.locate(int(batch.rows[place, node])) == (place, node)
    for row in (-1, len(located)):
        with pytest.raises(ValueError, match=f"row {row} is padding"):
            batch.locate(row)


def test_types_edges_and_distances_are_those_of_the_graphs() -> None:
    batch = batch_graphs(GRAPHS, cutoff=3)
    assert batch.distances.dtype == np.uint8
    for place, graph in enumerate(GRAPHS):
        rows = np.asarray(batch.rows)[place, : graph.num_nodes]
        np.testing.assert_array_equal(batch.graph.nodes["type"][rows], graph.node_types)
        np.testing.assert_array_equal(batch.graph.nodes["shape"][rows], graph.node_shapes)
        nodes = graph.num_nodes
        np.testing.assert_array_equal(batch.distances[place, :nodes, :nodes], graph.distances(3))
        assert not batch.distances[place, nodes:].any()
        assert not batch.distances[place, :, nodes:].any()
    edges = [
        (int(batch.rows[place, a]), int(batch.rows[place, b])) for place, g in enumerate(GRAPHS) for a, b in g.edges
    ]
    real = np.asarray(batch.flat_edge_mask)
    pairs = np.stack([batch.graph.senders, batch.graph.receivers], axis=1)
    assert [tuple(pair) for pair in pairs[real].tolist()] == edges
    assert not batch.flat_node_mask[pairs[~real]].any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_masks_and_sizes(sizes: list[int]) -> None:
    graphs = [random_graph(seed, size) for seed, size in enumerate(sizes)]
    batch = batch_graphs(graphs)
    assert batch.width == 64
    assert batch.num_graphs in (1, 2, 4, 8, 16)
    assert batch.num_graphs < 2 * len(graphs)
    np.testing.assert_array_equal(batch.node_mask.sum(1)[: len(sizes)], sizes)
    assert batch.node_mask.sum() == batch.flat_node_mask.sum() == sum(sizes)
    assert batch.graph_mask.sum() == len(sizes)
    assert [len(part) for part in batch.unpad(batch.node_mask)] == sizes
    # jraph's own masks agree, since the batch is always padded.
    np.testing.assert_array_equal(jraph.get_node_padding_mask(batch.graph), batch.flat_node_mask)
    np.testing.assert_array_equal(jraph.get_edge_padding_mask(batch.graph), batch.flat_edge_mask)
    assert int(batch.graph.n_node.sum()) == len(batch.flat_node_mask)
    assert int(batch.graph.n_edge.sum()) == len(batch.flat_edge_mask)


def test_a_batch_is_a_pytree_whose_structure_knows_no_names() -> None:
    first, second = (batch_graphs([random_graph(seed, 10, name)]) for seed, name in ((0, "a"), (1, "b")))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, second)


def test_the_smallest_bucket_that_holds_all_is_chosen() -> None:
    assert choose_bucket([random_graph(0, 64)]) == BUCKETS[0]
    assert choose_bucket([random_graph(0, 65), random_graph(1, 3)]) == BUCKETS[1]
    assert choose_bucket([random_graph(0, 5)], (Bucket(50, 400), Bucket(5, 40))) == Bucket(5, 40)


def test_above_the_largest_bucket() -> None:
    with pytest.raises(ValueError, match=r"architecture 'huge' with 41 nodes.*largest bucket of 40 nodes"):
        batch_graphs([random_graph(0, 10), random_graph(1, 41, "huge")], (Bucket(20, 160), Bucket(40, 320)))
    chain = [(node, node + 1) for node in range(9)]
    skips = [(a, b) for a in range(10) for b in range(a + 2, 10)]
    types = [Primitive.INPUT] + [Primitive.SUM] * 9
    dense = ArchGraph.build("dense", types, np.zeros((10, 4)), chain + skips, [])
    with pytest.raises(ValueError, match=r"architecture 'dense' with 10 nodes and 45 edges"):
        batch_graphs([dense], (Bucket(10, 20),))


def test_empty_batches() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        batch_graphs([])
    with pytest.raises(ValueError, match="at least one declared bucket"):
        batch_graphs(GRAPHS, ())

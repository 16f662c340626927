"""Shortest-path distances against scipy's."""

import numpy as np
import pytest
from corner_graphs import DENSE_NODES, corner_graphs, random_graph
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from ghn_jax.graphs import ArchGraph, Primitive


def scipy_distances(graph, cutoff):
    sources, targets = graph.edges.T
    adjacency = csr_array((np.ones(graph.num_edges), (sources, targets)), shape=(graph.num_nodes, graph.num_nodes))
    found = shortest_path(adjacency, unweighted=True)
    return np.where(np.isfinite(found) & (found <= cutoff), found, 0)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([1, 2, 5, 50, 250]))
def test_random_graphs(seed, num_nodes, cutoff):
    graph = random_graph(np.random.default_rng(seed), num_nodes)
    distances = graph.distances(cutoff)
    assert distances.dtype == np.uint8
    np.testing.assert_array_equal(distances, scipy_distances(graph, cutoff))


@pytest.mark.parametrize("name", corner_graphs())
def test_corner_cases(name):
    graph = corner_graphs()[name]
    np.testing.assert_array_equal(graph.distances(), scipy_distances(graph, 250))


def test_dense_graph_has_only_real_edges():
    expected = np.triu(np.ones((DENSE_NODES, DENSE_NODES), np.uint8), 1)
    np.testing.assert_array_equal(corner_graphs()["dense"].distances(), expected)


@pytest.mark.parametrize(("num_nodes", "cutoff"), [(251, 250), (400, 250), (400, 50), (3, 1)])
def test_chain_is_cut_off(num_nodes, cutoff):
    edges = [(node, node + 1) for node in range(num_nodes - 1)]
    types = [Primitive.INPUT] + [Primitive.CONV] * (num_nodes - 1)
    graph = ArchGraph.build("chain", types, np.zeros((num_nodes, 4)), edges, [])
    steps = np.arange(num_nodes)
    expected = np.clip(steps[None, :] - steps[:, None], 0, None)
    np.testing.assert_array_equal(graph.distances(cutoff), np.where(expected <= cutoff, expected, 0))

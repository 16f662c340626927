"""`ArchGraph`: order, properties, and every error with the node and the architecture in it."""

import re

import numpy as np
import pytest
from corner_graphs import corner_graphs, diamond, one_edge, random_graph
from graph_compare import specs_by_path
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role

INPUT, CONV, SUM, BIAS, POS = Primitive.INPUT, Primitive.CONV, Primitive.SUM, Primitive.BIAS, Primitive.POS_ENC


def build(types, edges, params=(), name="net"):
    return ArchGraph.build(name, types, np.zeros((len(types), 4)), edges, list(params))


def kernel(node, name="kernel"):
    return ParamSpec(("conv", name), (1, 1, 3, 8), "HWIO", Role.KERNEL, node)


@pytest.mark.parametrize("name", corner_graphs())
def test_corner_cases_keep_their_promises(name):
    graph = corner_graphs()[name]
    assert graph.node_types.dtype == np.int8
    assert graph.node_shapes.dtype == graph.edges.dtype == np.int32
    assert graph.node_shapes.shape == (graph.num_nodes, 4)
    assert graph.edges.shape == (graph.num_edges, 2)
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert graph.num_params == sum(spec.size for spec in graph.params)
    again = ArchGraph.build(name, graph.node_types, graph.node_shapes, graph.edges, graph.params)
    np.testing.assert_array_equal(again.edges, graph.edges)
    assert again.params == graph.params
    assert name in repr(graph)
    assert f"N={graph.num_nodes}, E={graph.num_edges}" in repr(graph)


def test_arrays_are_read_only_and_the_callers_are_not():
    types, shapes, edges = np.array([9, 4], np.int8), np.zeros((2, 4), np.int32), np.array([[0, 1]], np.int32)
    graph = ArchGraph.build("net", types, shapes, edges, [])
    for array in (graph.node_types, graph.node_shapes, graph.edges):
        assert not array.flags.writeable
    for array in (types, shapes, edges):
        array[:] = 0
    assert graph.node_types.tolist() == [9, 4]


def test_duplicate_edges_count_once_and_rows_are_sorted():
    graph = build([INPUT, CONV, CONV, SUM], [(2, 3), (0, 2), (0, 1), (1, 3), (0, 1)])
    assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_sorting_renumbers_shapes_and_params():
    """Given backwards: bias, conv, input."""
    shapes = [[8, 1, 1, 1], [8, 3, 1, 1], [0, 0, 0, 0]]
    bias = ParamSpec(("conv", "bias"), (8,), "O", Role.BIAS, 0)
    graph = ArchGraph.build("net", [BIAS, CONV, INPUT], shapes, [(2, 1), (1, 0)], [bias, kernel(1)])
    assert graph.node_types.tolist() == [INPUT, CONV, BIAS]
    assert graph.node_shapes.tolist() == shapes[::-1]
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert [(spec.name, spec.node) for spec in graph.params] == [("conv/bias", 2), ("conv/kernel", 1)]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_any_order_of_nodes_gives_the_same_graph(seed, num_nodes):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, num_nodes)
    shapes = np.arange(num_nodes)[:, None] * np.ones((1, 4), np.int32)  # tells the nodes apart
    order = rng.permutation(num_nodes)
    place = np.argsort(order)
    shuffled = ArchGraph.build("net", graph.node_types[order], shapes[order], place[graph.edges], [])
    original = shuffled.node_shapes[:, 0]
    assert sorted(original.tolist()) == list(range(num_nodes))
    assert shuffled.node_types.tolist() == graph.node_types[original].tolist()
    renamed = {tuple(edge) for edge in original[shuffled.edges].tolist()}
    assert renamed == {tuple(edge) for edge in graph.edges.tolist()}


def test_classes_and_lookup_by_path():
    graph = diamond()
    assert graph.num_classes == 10
    assert specs_by_path(graph)[("norm", "scale")].node == 2
    assert one_edge().num_classes is None


def test_classes_without_a_classifier_bias():
    spec = ParamSpec(("head", "kernel"), (8, 7), "IO", Role.CLASSIFIER_KERNEL, 1)
    assert build([INPUT, CONV], [(0, 1)], [spec]).num_classes == 7


@pytest.mark.parametrize(
    ("types", "edges", "message"),
    [
        ([], [], "architecture 'net' has no nodes"),
        ([INPUT, 15], [(0, 1)], "architecture 'net': node 1 has the unknown type 15"),
        ([INPUT, CONV, -1], [(0, 1), (1, 2)], "architecture 'net': node 2 has the unknown type -1"),
        ([INPUT, 300], [(0, 1)], "architecture 'net': node 1 has the unknown type 300"),
        ([INPUT, CONV], [(0, 2)], "architecture 'net': edge (0, 2) leaves the range of its 2 nodes"),
        ([INPUT, CONV], [(-1, 1)], "architecture 'net': edge (-1, 1) leaves the range of its 2 nodes"),
        ([INPUT, CONV], [(0, 1, 1)], "architecture 'net': edges must be rows (from, to), got an array of shape (1, 3)"),
        ([INPUT, CONV], [(0, 1), (1, 1)], "architecture 'net': cycle, node 1 is its own successor"),
        ([INPUT, CONV, CONV, SUM], [(0, 1), (1, 2), (2, 1), (2, 3)], "architecture 'net': cycle at or before node 1"),
        ([CONV, INPUT], [(0, 1)], "architecture 'net': the first node must be its only input, found inputs at [1]"),
        ([INPUT, INPUT, SUM], [(0, 2), (1, 2)], "architecture 'net': the first node must be its only input, found"),
        ([CONV, SUM], [(0, 1)], "architecture 'net': the first node must be its only input, found inputs at []"),
        ([INPUT, CONV], [], "architecture 'net': node 0 (input) does not reach the last node"),
        ([INPUT, CONV, SUM], [(0, 1), (0, 2)], "architecture 'net': node 1 (conv) does not reach the last node"),
        ([INPUT, CONV, SUM], [(0, 2), (1, 2)], "architecture 'net': node 1 (conv) has no path from the input"),
        ([INPUT, POS, CONV], [(0, 2)], "architecture 'net': node 1 (pos_enc) does not reach the last node"),
    ],
)
def test_bad_graphs_name_node_and_architecture(types, edges, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(types, edges)


@pytest.mark.parametrize("node", [-1, 2])
def test_spec_of_a_node_out_of_range(node):
    message = f"architecture 'net': parameter 'conv/kernel' points to node {node}, which is out of range"
    with pytest.raises(ValueError, match=re.escape(message)):
        build([INPUT, CONV], [(0, 1)], [kernel(node)])


def test_spec_that_contradicts_its_node():
    with pytest.raises(ValueError, match=r"'conv/kernel' of architecture 'net': a kernel cannot be decoded from a sum"):
        build([INPUT, SUM], [(0, 1)], [kernel(1)])


@pytest.mark.parametrize("shape", [(2, 3), (3, 4), (2,)])
def test_shapes_that_do_not_fit_the_nodes(shape):
    with pytest.raises(ValueError, match=r"architecture 'net': node_shapes must be \(2, 4\), got"):
        ArchGraph.build("net", [INPUT, CONV], np.zeros(shape), [(0, 1)], [])


def test_constructor_does_not_sort():
    types, shapes = np.array([INPUT, CONV, SUM], np.int8), np.zeros((3, 4), np.int32)
    edges = np.array([[0, 2], [2, 1]], np.int32)
    with pytest.raises(ValueError, match=r"'net': rows are not in topological order; use ArchGraph\.build"):
        ArchGraph("net", types, shapes, edges, ())


@pytest.mark.parametrize("cutoff", [0, 251])
def test_cutoff_out_of_range(cutoff):
    with pytest.raises(ValueError, match=f"cutoff must be a whole number from 1 to 250, got {cutoff}"):
        diamond().distances(cutoff)


EXPECTED = """\
diamond: 6 nodes, 6 edges, 130 weights
node  primitive  shape (O, I, H, W)  predecessors  parameters
0     input      -                   -             -
1     conv       8 x 3 x 1 x 1       0             conv/kernel
2     bn         8 x 1 x 1 x 1       1             norm/scale, norm/bias
3     sum        -                   1 2           -
4     conv       10 x 8 x 1 x 1      3             head/kernel
5     bias       10 x 1 x 1 x 1      4             head/bias"""


def test_printed_table():
    assert str(corner_graphs()["diamond"]) == EXPECTED


@pytest.mark.parametrize("name", corner_graphs())
def test_printed_table_has_one_line_a_node(name):
    graph = corner_graphs()[name]
    title, header, *rows = str(graph).splitlines()
    assert title == f"{name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_params:,} weights"
    assert [int(row.split()[0]) for row in rows] == list(range(graph.num_nodes))
    start = header.index("parameters")
    for row in rows:
        assert row[start - 1] == " "
        assert row[start] != " "
        assert row == row.rstrip()


def test_printed_stacked_leaves_carry_their_index():
    table = str(corner_graphs()["stacked"])
    assert "layers/kernel[0]" in table
    assert "layers/kernel[1]" in table

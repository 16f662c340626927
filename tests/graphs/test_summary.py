"""The table that `print(graph)` shows."""

import pytest
from corner_graphs import corner_graphs

EXPECTED = """\
diamond: 6 nodes, 6 edges, 130 weights
node  primitive  shape (O, I, H, W)  predecessors  parameters
0     input      -                   -             -
1     conv       8 x 3 x 1 x 1       0             conv/kernel
2     bn         8 x 1 x 1 x 1       1             norm/scale, norm/bias
3     sum        -                   1 2           -
4     conv       10 x 8 x 1 x 1      3             head/kernel
5     bias       10 x 1 x 1 x 1      4             head/bias"""


def test_table():
    assert str(corner_graphs()["diamond"]) == EXPECTED


@pytest.mark.parametrize("name", corner_graphs())
def test_one_line_a_node(name):
    graph = corner_graphs()[name]
    title, header, *rows = str(graph).splitlines()
    assert title == f"{name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_params:,} weights"
    assert [int(row.split()[0]) for row in rows] == list(range(graph.num_nodes))
    start = header.index("parameters")
    for row in rows:
        assert row[start - 1] == " "
        assert row[start] != " "
        assert row == row.rstrip()


def test_stacked_leaves_carry_their_index():
    table = str(corner_graphs()["stacked"])
    assert "layers/kernel[0]" in table
    assert "layers/kernel[1]" in table

"""Pictures of graphs: the layout's promises, complete files, errors."""

import re
import subprocess
import sys

import numpy as np
import pytest
from corner_graphs import corner_graphs, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.optimize import isotonic_regression

from ghn_jax.graphs import Primitive, draw
from ghn_jax.graphs.draw import COLOURS
from ghn_jax.graphs.layout import isotonic, layered_layout

GRAPHS = [*corner_graphs().values(), random_graph(np.random.default_rng(0), 40)]


def edges_of(layout, num_nodes):
    """The graph's edges again, by following the lanes."""
    edges = set()
    for source, target in layout.links.tolist():
        if target < num_nodes:
            edges.add((int(layout.sources[source]), target))
        else:
            assert layout.sources[target] == layout.sources[source]
    return edges


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_layout(seed, num_nodes):
    graph = corner_graphs()["single_node"] if num_nodes == 1 else random_graph(np.random.default_rng(seed), num_nodes)
    layout = layered_layout(graph)
    assert edges_of(layout, num_nodes) == {tuple(edge) for edge in graph.edges.tolist()}
    assert layout.sources[:num_nodes].tolist() == list(range(num_nodes))
    assert (np.diff(layout.levels[layout.links], axis=1) == 1).all()
    for level in range(layout.num_levels):
        items = np.flatnonzero(layout.levels == level)
        nodes = layout.heights[items[items < num_nodes]]
        assert np.diff(np.sort(nodes)).min(initial=1) >= 1 - 1e-9
        assert np.diff(np.sort(layout.heights[items])).min(initial=1) > 0.4


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_rows_cover_the_levels(graph):
    layout = layered_layout(graph)
    for length in (1, 3, 10, 1000):
        rows = layout.rows(length)
        assert [level for first, last in rows for level in range(first, last)] == list(range(layout.num_levels))
        assert all(last - first <= length for first, last in rows)


def test_rows_are_cut_where_few_lanes_cross():
    layout = layered_layout(random_graph(np.random.default_rng(3), 60))
    crossing = np.bincount(layout.levels[layout.links[:, 0]])
    (first, last), *_ = layout.rows(10)
    assert first == 0
    assert crossing[last - 1] == crossing[7:10].min()


def test_position_table_stands_before_its_sum():
    layout = layered_layout(corner_graphs()["position_table"])
    assert layout.levels[:4].tolist() == [0, 1, 1, 2]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 4)), min_size=1, max_size=20))
def test_isotonic(pairs):
    values, weights = np.array(pairs).T
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(isotonic(values, weights), expected, atol=1e-9)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_every_primitive_shows_its_colour(graph, tmp_path):
    draw(graph, tmp_path / "graph.png")
    assert [file.name for file in tmp_path.iterdir()] == ["graph.png"]
    pixels = imread(tmp_path / "graph.png")[..., :3].reshape(-1, 3)
    shown = {tuple(row) for row in np.unique((pixels * 255).round().astype(int), axis=0).tolist()}
    for primitive in Primitive:
        colour = tuple(round(255 * part) for part in to_rgb(COLOURS[primitive]))
        assert (colour in shown) == (primitive in graph.node_types)


def test_drawing_is_deterministic(tmp_path):
    graph = corner_graphs()["dense"]
    for name in ("a.png", "b.png"):
        draw(graph, str(tmp_path / name))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_vector_formats_hold_the_text(tmp_path):
    draw(corner_graphs()["diamond"], tmp_path / "graph.svg")
    text = (tmp_path / "graph.svg").read_text()
    assert "diamond: 6 nodes, 6 edges, 130 weights" in text
    draw(corner_graphs()["diamond"], tmp_path / "graph.pdf")
    assert (tmp_path / "graph.pdf").read_bytes().startswith(b"%PDF")


def test_an_interrupted_drawing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "graph.png"
    target.write_bytes(b"old")

    def interrupted(self, path, **_):
        open(path, "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(corner_graphs()["diamond"], target)
    assert [file.name for file in tmp_path.iterdir()] == ["graph.png"]
    assert target.read_bytes() == b"old"


def test_unknown_format(tmp_path):
    message = "graph.bmp' of 'diamond'; use one of .png, .pdf, .svg"
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(corner_graphs()["diamond"], tmp_path / "graph.bmp")


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"missing' of 'graph\.png' does not exist; make it first"):
        draw(corner_graphs()["diamond"], tmp_path / "missing" / "graph.png")


def test_matplotlib_is_not_imported_before_a_drawing():
    code = "import sys, ghn_jax.graphs; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")

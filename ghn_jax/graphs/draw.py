"""Pictures of architecture graphs. Matplotlib is imported when a picture is drawn, not before."""

import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ghn_jax.files import atomic_file
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.layout import Layout, layered_layout
from ghn_jax.graphs.vocabulary import Primitive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    Primitive.INPUT: "#222222",
    Primitive.CONV: "#1f77b4",
    Primitive.SEP_CONV: "#7fb8e6",
    Primitive.DIL_CONV: "#17becf",
    Primitive.BIAS: "#c9d6e2",
    Primitive.BN: "#8fce8f",
    Primitive.LN: "#2e8b57",
    Primitive.SUM: "#ffd54a",
    Primitive.CONCAT: "#ff9f1c",
    Primitive.MAX_POOL: "#d94a4a",
    Primitive.AVG_POOL: "#f4a6a6",
    Primitive.GLOB_AVG: "#8b1e1e",
    Primitive.MSA: "#8e5bc0",
    Primitive.CSE: "#d17fd1",
    Primitive.POS_ENC: "#a5714f",
}
"""Colour of each primitive; relatives have related colours."""

_SUFFIXES = (".png", ".pdf", ".svg")
_LEVEL_INCHES = 0.36
_HEIGHT_INCHES = 0.32
_NODE_POINTS = 15.0  # diameter of a node
_STUB = 0.62  # length of a stub, in levels
_ROW_GAP = 1.6  # free height between rows
_ASPECT = 1.5  # width / height that rows are wrapped to
_MIN_LEVELS = 24  # a row is at least as long, if there are as many levels
_LEGEND_INCHES = 1.5  # width of a column of the legend
_DPI = 130


def draw(graph: ArchGraph, path: str | os.PathLike[str]) -> None:
    """Draws the graph from left to right by depth, coloured by primitive, wrapped into rows like lines of text.

    Nodes carry their row in the graph, as in ``print(graph)``. An edge that passes over other levels runs in a lane of
    its source; one that leaves a row at the right enters the next at the left, both ends marked with the source.

    Args:
      graph: architecture; some hundred nodes make a picture of a few thousand pixels.
      path: file to write: ``.png``, ``.pdf`` or ``.svg``. It appears complete or not at all.

    Raises:
      ValueError: for another suffix or a folder that does not exist.
    """
    target = pathlib.Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"draw: cannot write {str(target)!r} of {graph.name!r}; use one of {', '.join(_SUFFIXES)}")
    if not target.parent.is_dir():
        raise ValueError(f"draw: folder {str(target.parent)!r} of {target.name!r} does not exist; make it first")
    from matplotlib.figure import Figure

    layout = layered_layout(graph)
    rows = layout.rows(_row_length(layout))
    x, y, bounds = _places(layout, rows)
    width, height = max(bounds[0], _MIN_LEVELS), bounds[1]
    figure = Figure(figsize=(width * _LEVEL_INCHES, height * _HEIGHT_INCHES + 1.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-1.4, width - 1.4)
    axes.set_ylim(height - 0.8, -0.8)
    _draw_links(axes, layout, x, y, rows)
    _draw_nodes(axes, graph, x, y)
    title = f"{graph.name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_params:,} weights"
    axes.set_title(title, loc="left", fontsize=12)
    columns = int(width * _LEVEL_INCHES / _LEGEND_INCHES)
    figure.legend(loc="outside lower left", ncols=columns, fontsize=9, frameon=False, labelspacing=1.0)
    with atomic_file(target) as partial:
        figure.savefig(partial, dpi=_DPI)


def _row_length(layout: Layout) -> int:
    """Levels of a row such that the whole picture has about the wanted aspect."""
    best, best_error = layout.num_levels, math.inf
    for length in range(min(_MIN_LEVELS, layout.num_levels), layout.num_levels + 1):
        width, height = _places(layout, layout.rows(length))[2]
        error = abs(math.log(width * _LEVEL_INCHES / (height * _HEIGHT_INCHES) / _ASPECT))
        if error < best_error:
            best, best_error = length, error
    return best


def _places(layout: Layout, rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """x, y of all items, rows below each other, and the (width, height) that they fill, in levels and heights."""
    x, y = np.zeros(len(layout.levels)), np.zeros(len(layout.levels))
    top = 0.0
    for first, last in rows:
        items = (layout.levels >= first) & (layout.levels < last)
        heights = layout.heights[items]
        x[items] = layout.levels[items] - first
        y[items] = heights - heights.min() + top
        top += float(np.ptp(heights)) + _ROW_GAP
    return x, y, (max(last - first for first, last in rows) + 1.8, top)


def _draw_links(axes: "Axes", layout: Layout, x: np.ndarray, y: np.ndarray, rows: list[tuple[int, int]]) -> None:
    """Links as smooth lines; those between rows as a marked stub at either end."""
    from matplotlib.collections import LineCollection

    row_of_level = np.repeat(np.arange(len(rows)), [last - first for first, last in rows])
    step = np.linspace(0.0, 1.0, 13)
    bend = step**2 * (3 - 2 * step)
    curves: list[np.ndarray] = []
    stubs: dict[tuple[int, float], set[int]] = {}  # (item, direction) -> sources that leave or enter a row there
    for source, target in layout.links.tolist():
        if row_of_level[layout.levels[source]] == row_of_level[layout.levels[target]]:
            across = x[source] + (x[target] - x[source]) * step
            curves.append(np.stack([across, y[source] + (y[target] - y[source]) * bend], axis=1))
        else:
            stubs.setdefault((source, _STUB), set()).add(int(layout.sources[source]))
            stubs.setdefault((target, -_STUB), set()).add(int(layout.sources[source]))
    for (item, length), sources in stubs.items():
        curves.append(np.array([[x[item], y[item]], [x[item] + length, y[item]]]))
        label = "\n".join(map(str, sorted(sources)))
        side = "left" if length > 0 else "right"
        _text(axes, x[item] + 1.1 * length, y[item], label, ha=side, fontsize=5, color="#555555")
    axes.add_collection(LineCollection(curves, colors="#9a9a9a", linewidths=0.8, zorder=1))


def _draw_nodes(axes: "Axes", graph: ArchGraph, x: np.ndarray, y: np.ndarray) -> None:
    """Nodes with their row, one legend entry for each primitive that occurs."""
    from matplotlib.colors import to_rgb

    for primitive, colour in COLOURS.items():
        nodes = np.flatnonzero(graph.node_types == primitive)
        if not len(nodes):
            continue
        label = f"{primitive.label} ({len(nodes)})"
        axes.scatter(
            x[nodes], y[nodes], s=_NODE_POINTS**2, c=colour, edgecolors="#333333", linewidths=0.5, label=label, zorder=2
        )
        ink = "black" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "white"
        for node in nodes.tolist():
            _text(axes, x[node], y[node], str(node), ha="center", fontsize=6, color=ink, zorder=3)


def _text(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:
    """Text that the figure's layout can ignore: it stays within the limits of the axes."""
    axes.text(x, y, text, va="center", in_layout=False, **style)

"""Plain-text summary of an architecture graph."""

import collections
from typing import TYPE_CHECKING

from ghn_jax.graphs.vocabulary import Primitive

if TYPE_CHECKING:
    from ghn_jax.graphs.arch_graph import ArchGraph


def graph_table(graph: "ArchGraph") -> str:
    """One line a node (row, primitive, shape, predecessors, parameters) under a title; then what is not predicted."""
    predecessors = collections.defaultdict(list)
    for source, target in graph.edges.tolist():
        predecessors[target].append(source)
    names = collections.defaultdict(list)
    for spec in graph.params:
        names[spec.node].append(spec.name)
    rows = [("node", "primitive", "shape (O, I, H, W)", "predecessors", "parameters")]
    for node, (kind, shape) in enumerate(zip(graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True)):
        rows.append(
            (
                str(node),
                Primitive(kind).label,
                " x ".join(map(str, shape)) if any(shape) else "-",
                " ".join(map(str, predecessors[node])) or "-",
                ", ".join(names[node]) or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    title = f"{graph.name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_params:,} weights"
    if graph.kept:
        lines.append(f"not predicted: {graph.kept_share:.2%} of the weights")
        lines += [f"  {leaf.name} ({' x '.join(map(str, leaf.shape))}): {leaf.reason}" for leaf in graph.kept]
    return "\n".join([title, *lines])

"""Graphs mislabelled as most of those in the release's files are (docs/method.md, section 10), for experiments."""

import dataclasses

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph


def mislabelled(graph: ArchGraph) -> ArchGraph:
    """The graph with its labels and tensors on rows of other nodes.

    Labels stay in the order in which the network names its parts, cell by cell. The edges become those of the same
    nodes in another topological order, in which neighbouring cells interleave: by the longest way to the output,
    farthest first. About half of the rows have another type than their node then; in 60 networks that the release's
    generator wrote it was 46 %.
    """
    farthest = np.zeros(graph.num_nodes, np.int64)
    for source, target in graph.edges[::-1]:  # sorted by source: what lies behind the target is known
        farthest[source] = max(farthest[source], farthest[target] + 1)
    farthest[0] = graph.num_nodes  # the input stays in front
    order = np.argsort(-farthest, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    edges = rank[graph.edges]
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    return dataclasses.replace(graph, edges=edges.astype(np.int32))

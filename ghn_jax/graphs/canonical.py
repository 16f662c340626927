"""A number of a graph that does not depend on the order of its nodes: equal for isomorphic architectures.

Colour refinement (Weisfeiler and Leman, 1968) on a directed acyclic graph. Every node starts with its type and shape as
colour; a sweep in topological order hashes into each node the multiset of its predecessors' colours, so that one sweep
carries what lies upstream all the way to the output; a sweep in reverse order does the same with successors. Sweeps
there and back are repeated until they tell no more nodes apart. Names, parameter paths and node order play no part.

Isomorphic graphs always get the same number. The converse does not hold: refinement cannot tell some different graphs
apart (and 64 bits may collide by chance). Where equal numbers decide that an architecture is held out of training, both
errors leave out an architecture too many, never one too few.
"""

import hashlib

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.vocabulary import Primitive

_COLOUR_BYTES = 8

Signature = tuple[int, bytes]
"""Number of edges, and number of nodes of each type."""


def canonical_hash(graph: ArchGraph) -> int:
    """64-bit number of an architecture, the same for all graphs isomorphic to it.

    The same in every process, on every machine and in every version of Python.

    Args:
      graph: nodes are compared by their types and shapes, so widths and classes count.
    """
    count = graph.num_nodes
    before: list[list[int]] = [[] for _ in range(count)]
    behind: list[list[int]] = [[] for _ in range(count)]
    for source, target in graph.edges.tolist():
        before[target].append(source)
        behind[source].append(target)
    labels = np.concatenate([graph.node_types[:, None], graph.node_shapes], axis=1).astype("<i4")
    width = labels.strides[0]
    text = labels.tobytes()
    colours = [text[place : place + width] for place in range(0, len(text), width)]
    told_apart = 0
    while len(set(colours)) > told_apart:
        told_apart = len(set(colours))
        colours = _sweep(colours, before, range(count))
        colours = _sweep(colours, behind, range(count - 1, -1, -1))
    whole = _digest(b"".join(sorted(colours)))
    return int.from_bytes(whole, "little")


def signature(graph: ArchGraph) -> Signature:
    """A cheaper invariant: graphs of different signatures are not isomorphic, whatever their widths and classes are."""
    counts = np.bincount(graph.node_types, minlength=len(Primitive))
    return graph.num_edges, counts.astype("<i4").tobytes()


def _sweep(colours: list[bytes], neighbours: list[list[int]], order: range) -> list[bytes]:
    """New colours, each of the node's own and of its neighbours' new ones, which come earlier in `order`."""
    new = colours.copy()
    for node in order:
        new[node] = _digest(colours[node] + b"".join(sorted([new[other] for other in neighbours[node]])))
    return new


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_COLOUR_BYTES).digest()

"""Shortest-path distances in a directed acyclic graph, for virtual edges (paper, Eq. 4)."""

import numpy as np

_FAR = 1 << 14  # above every path; doubling it still fits int16


def shortest_path_distances(edges: np.ndarray, num_nodes: int, cutoff: int) -> np.ndarray:
    """Distances from every node to every node that follows it.

    One row a node, in topological order: a node's row is the smallest of its predecessors' rows, plus one.

    Args:
      edges: int (E, 2), rows (from, to) with from < to, sorted by (from, to).
      num_nodes: N.
      cutoff: distances above it are dropped; at most 250.

    Returns:
      uint8 (N, N), [i, j] from i to j; 0 on the diagonal and where there is no path.
    """
    by_target = np.argsort(edges[:, 1], kind="stable")
    sources = edges[by_target, 0].tolist()
    starts = np.searchsorted(edges[by_target, 1], np.arange(num_nodes + 1)).tolist()
    to = np.full((num_nodes, num_nodes), _FAR, np.int16)  # to[j, i]: distance from i to j
    for node in range(num_nodes):
        first, last = starts[node], starts[node + 1]
        row = to[node]
        if last - first == 1:
            source = sources[first]
            np.add(to[source, :node], 1, out=row[:node])
        elif last > first:
            np.minimum(to[sources[first], :node], to[sources[first + 1], :node], out=row[:node])
            for source in sources[first + 2 : last]:
                np.minimum(row[:node], to[source, :node], out=row[:node])
            row[:node] += 1
        row[node] = 0
    to[to > cutoff] = 0
    return np.ascontiguousarray(to.T.astype(np.uint8))

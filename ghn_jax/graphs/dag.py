"""Order and distances of a directed acyclic graph, the distances for virtual edges (paper, Eq. 4)."""

import heapq

import numpy as np

_FAR = 1 << 14  # above every path; doubling it still fits int16


def topological_order(edges: np.ndarray, num_nodes: int, name: str) -> np.ndarray:
    """Rows in an order in which every edge points forward; among free rows the lowest comes first.

    Args:
      edges: int (E, 2), rows (from, to).
      num_nodes: N.
      name: of the architecture, for the error.

    Returns:
      int32 (N,): the row that stands at each place.

    Raises:
      ValueError: for a cycle; names a node on it.
    """
    successors: list[list[int]] = [[] for _ in range(num_nodes)]
    waiting = [0] * num_nodes
    for source, target in np.unique(np.asarray(edges).reshape(-1, 2), axis=0).tolist():
        successors[source].append(target)
        waiting[target] += 1
    free = [node for node in range(num_nodes) if waiting[node] == 0]
    order: list[int] = []
    while free:
        node = heapq.heappop(free)
        order.append(node)
        for successor in successors[node]:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                heapq.heappush(free, successor)
    if len(order) < num_nodes:
        node = min(n for n in range(num_nodes) if waiting[n] > 0)
        raise ValueError(f"architecture {name!r}: cycle at or before node {node}")
    return np.array(order, np.int32)


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
    predecessors: list[list[int]] = [[] for _ in range(num_nodes)]
    for source, target in edges.tolist():
        predecessors[target].append(source)
    to = np.full((num_nodes, num_nodes), _FAR, np.int16)  # to[j, i]: distance from i to j
    rows = list(to)
    for node, before in enumerate(predecessors):
        row = rows[node]
        if len(before) == 1:
            np.add(rows[before[0]], 1, out=row)
        elif before:
            np.minimum(rows[before[0]], rows[before[1]], out=row)
            for source in before[2:]:
                np.minimum(row, rows[source], out=row)
            np.add(row, 1, out=row)
        row[node] = 0
    np.multiply(to, to <= cutoff, out=to)
    return to.T.astype(np.uint8, order="C")

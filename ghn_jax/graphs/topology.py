"""Order of a directed acyclic graph."""

import heapq

import numpy as np


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

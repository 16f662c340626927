"""Work side by side in threads, for compiled programs that take a core each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """`function` of every item, in their order; one after the other in this thread if `threads` is 1."""
    if threads == 1 or len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(function, items))


def shares(costs: Sequence[int], count: int) -> list[list[int]]:
    """Splits items among `count` workers so that the dearest share is cheap; the same wherever it is done.

    Args:
      costs: of the items.
      count: of the workers.

    Returns:
      Numbers of the items of each worker, rising.
    """
    loads = [0] * count
    parts: list[list[int]] = [[] for _ in range(count)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        place = loads.index(min(loads))
        parts[place].append(item)
        loads[place] += costs[item]
    return [sorted(part) for part in parts]

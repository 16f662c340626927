"""Work in threads, and its shares."""

import threading

import pytest

from ghn_jax.threads import shares, side_by_side


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    assert side_by_side(lambda x: x * x, range(7), threads) == [0, 1, 4, 9, 16, 25, 36]
    assert side_by_side(str, [], threads) == []


def test_items_really_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=60)
    assert sorted(side_by_side(lambda _: both.wait(), range(2), 2)) == [0, 1]


def test_an_error_goes_on_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda x: 1 / x, [1, 0], 2)


def test_shares_are_even_complete_and_repeatable() -> None:
    costs = [100, 90, 80, 30, 20, 10]
    parts = shares(costs, 3)
    assert sorted(item for part in parts for item in part) == list(range(6))
    assert max(sum(costs[i] for i in part) for part in parts) == 110
    assert parts == shares(costs, 3)
    assert shares([5], 3) == [[0], [], []]

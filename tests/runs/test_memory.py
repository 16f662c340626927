"""Memory that the C library holds for nothing goes back to the system."""

import ctypes
import sys

import numpy as np
import pytest

from ghn_jax.runs.memory import ProcessMemory

SIZE, COUNT = 100_000, 3_000
"""Small enough for the allocator's heaps; larger pieces are mapped one by one at first."""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not the GNU C library"
)
def test_holes_between_what_stays_are_given_back() -> None:
    pieces = [np.ones(SIZE, np.uint8) for _ in range(COUNT)]
    kept = pieces[::10]
    pieces.clear()
    with_holes = ProcessMemory()()["resident_bytes"]  # gives back when it has measured
    without = ProcessMemory()()["resident_bytes"]
    assert with_holes - without > 0.5 * SIZE * COUNT
    assert all(piece.all() for piece in kept)

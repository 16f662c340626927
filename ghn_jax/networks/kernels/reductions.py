"""Sums: the types in which they are taken, sums over all axes but the last, and work on a few images at a time.

XLA's CPU reduction over leading axes runs at a quarter of the memory's speed. Adding a few slices first, which is
elementwise work, leaves it a part of the data. That part must stay above a size: smaller reductions are not handed to
the vectorised library, and XLA then fuses them with the elementwise work, which is many times slower (jax 0.10.1; the
gradient of a 5 x 5 depthwise kernel at 64 x 11 x 11 x 32 by 8 parts of 30,976 elements took 5.9 ms, by 4 parts 0.8).
Optimisation barriers do not keep XLA's CPU compiler from fusing, so there are none.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")

MOST_PARTS = 8

SMALLEST_REDUCTION = 2**15
"""Elements from which on XLA reduces with its vectorised library."""


def accumulator(dtype: Any) -> Any:
    """Type of sums, statistics and logits for data of `dtype`: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def parts(shape: tuple[int, ...]) -> int:
    """How many slices of an array (B, .., C) to add before XLA's reduction; divides B."""
    count = math.gcd(MOST_PARTS, shape[0])
    while count > 2 and math.prod(shape) // count < SMALLEST_REDUCTION:
        count //= 2
    return count


def channel_sums(*terms: jax.Array, cpu: bool = True) -> list[jax.Array]:
    """For each term (B, .., C) its sum (C,) in at least float32; elementwise terms are never stored."""
    if not cpu:
        return [term.astype(accumulator(term.dtype)).sum(tuple(range(term.ndim - 1))) for term in terms]
    count = parts(terms[0].shape)
    width = terms[0].shape[-1]
    partial = []
    for term in terms:
        slices = term.astype(accumulator(term.dtype)).reshape(count, -1, width)
        total = slices[0]
        for index in range(1, count):
            total = total + slices[index]
        partial.append(total)
    return [part.sum(0) for part in partial]


def map_images(function: Callable[..., Tree], images: int, *arrays: jax.Array) -> Tree:
    """`function` of a few images at a time, so that what it writes stays in the cache and memory is used again.

    Args:
      function: of some images of each array, to arrays of as many images.
      images: at a time, at most. A batch that divides by less than half of this number is taken as a whole.
      *arrays: (B, ..).

    Returns:
      Arrays (B, ..).
    """
    chunks = _chunks(images, arrays)
    if chunks is None:
        return function(*arrays)
    mapped = lax.map(lambda chunk: function(*chunk), chunks)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), mapped)


def sum_images(
    function: Callable[..., tuple[Tree, jax.Array]], images: int, *arrays: jax.Array
) -> tuple[Tree, jax.Array]:
    """As `map_images`; `function` gives a second array, whose sum in at least float32 is the second result."""

    def wide(*chunk: jax.Array) -> tuple[Tree, jax.Array]:
        mapped, part = function(*chunk)
        return mapped, part.astype(accumulator(part.dtype))

    chunks = _chunks(images, arrays)
    if chunks is None:
        return wide(*arrays)
    total = jax.eval_shape(wide, *(array[0] for array in chunks))[1]

    def step(total: jax.Array, chunk: list[jax.Array]) -> tuple[jax.Array, Tree]:
        mapped, part = wide(*chunk)
        return total + part, mapped

    total, mapped = lax.scan(step, jnp.zeros(total.shape, total.dtype), chunks)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), mapped), total


def _chunks(images: int, arrays: Sequence[jax.Array]) -> list[jax.Array] | None:
    """Arrays (chunks, images, ..); None if the whole batch is one."""
    batch = arrays[0].shape[0]
    count = math.gcd(images, batch)
    if count == batch or 2 * count < images:
        return None
    return [array.reshape(-1, count, *array.shape[1:]) for array in arrays]

"""Sums: the types in which they are taken, and sums over all axes but the last.

XLA's CPU reduction over leading axes runs at a quarter of the memory's speed. Adding a few slices first, which is
elementwise work, leaves it a part of the data. That part must stay above a size: smaller reductions are not handed to
the vectorised library, and XLA then fuses them with the elementwise work, which is many times slower (jax 0.10.1; the
gradient of a 5 x 5 depthwise kernel at 64 x 11 x 11 x 32 by 8 parts of 30,976 elements took 5.9 ms, by 4 parts 0.8).
Optimisation barriers do not keep XLA's CPU compiler from fusing, so there are none.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

T = TypeVar("T", jax.Array, None)

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


def by_images(function: Callable[..., tuple[T, jax.Array]], images: int, *arrays: jax.Array) -> tuple[T, jax.Array]:
    """`function` of a few images at a time, so that what it writes stays in the cache and memory is used again.

    Args:
      function: of some images of each array, to an array of as many images, or None, and one to be summed.
      images: at a time, at most. A batch that divides by no more than a third of this number is taken as a whole.
      *arrays: (B, ..).

    Returns:
      The first results (B, ..), and the sum of the second, in at least float32.
    """

    def wide(*chunk: jax.Array) -> tuple[T, jax.Array]:
        mapped, part = function(*chunk)
        return mapped, part.astype(accumulator(part.dtype))

    batch = arrays[0].shape[0]
    count = math.gcd(images, batch)
    if count == batch or 2 * count < images:
        return wide(*arrays)
    chunks = [array.reshape(-1, count, *array.shape[1:]) for array in arrays]
    total = jax.eval_shape(wide, *(array[0] for array in chunks))[1]

    def step(total: jax.Array, chunk: list[jax.Array]) -> tuple[jax.Array, T]:
        mapped, part = wide(*chunk)
        return total + part, mapped

    total, mapped = lax.scan(step, jnp.zeros(total.shape, total.dtype), chunks)
    return (None if mapped is None else mapped.reshape(batch, *mapped.shape[2:])), total

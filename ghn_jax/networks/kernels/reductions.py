"""Sums over all axes but the last.

XLA's CPU reduction over leading axes runs at a quarter of the memory's speed. Adding eight slices first, which is
elementwise work, leaves it an eighth of the data.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

PARTS = 8


def channel_sums(*terms: jax.Array) -> list[jax.Array]:
    """For each term (B, .., C) its float32 sum (C,); terms that are computed elementwise are never stored."""
    count = math.gcd(PARTS, terms[0].shape[0])
    width = terms[0].shape[-1]
    partial = []
    for term in terms:
        parts = term.astype(jnp.float32).reshape(count, -1, width)
        total = parts[0]
        for index in range(1, count):
            total = total + parts[index]
        partial.append(total)
    return [part.sum(0) for part in lax.optimization_barrier(partial)]

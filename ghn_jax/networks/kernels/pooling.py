"""Pooling over 3 x 3 windows, padding 1."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def max_pool(x: jax.Array, stride: int) -> jax.Array:
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype), lax.max, (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def window_counts(size: int, stride: int) -> np.ndarray:
    starts = np.arange(0, size, stride)
    return np.minimum(starts + 1, size - 1) - np.maximum(starts - 1, 0) + 1


def avg_pool(x: jax.Array, stride: int) -> jax.Array:
    total = lax.reduce_window(
        x, np.array(0, x.dtype), lax.add, (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )
    count = np.outer(window_counts(x.shape[1], stride), window_counts(x.shape[2], stride))
    return total * jnp.asarray(1 / count, x.dtype)[None, :, :, None]

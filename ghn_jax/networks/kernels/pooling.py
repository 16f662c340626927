"""Pooling over 3 x 3 windows, padding 1.

The maximum keeps one byte for each output pixel, its place in the window. XLA's own gradient reads the whole input
again, which in a stem is a normalised copy of what the stem already keeps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ghn_jax.networks.kernels.platform import keeping_arguments, lean, on_cpu
from ghn_jax.networks.kernels.reductions import map_images

Residuals = tuple[jax.Array, jax.Array]

IMAGES = 4
"""Images that a CPU takes at a time; not for gradients of stride 2, whose phases are interleaved faster at once."""

_PADDING = ((0, 0), (1, 1), (1, 1), (0, 0))
_TAPS = [(i, j) for i in range(3) for j in range(3)]


def max_pool(x: jax.Array, stride: int) -> jax.Array:
    """Maximum of each window of x (B, H, W, C); its gradient goes to the first of equal pixels."""
    return _lean_max(x, stride, on_cpu()) if lean() else plain_max_pool(x, stride)


def plain_max_pool(x: jax.Array, stride: int) -> jax.Array:
    """`max_pool` by XLA's window reduction, whose gradient (select-and-scatter) reads x and is slow on CPU."""
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), _PADDING)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _lean_max(x: jax.Array, stride: int, cpu: bool) -> jax.Array:
    return _max_forward(x, stride, cpu)[0]


def _max_forward(x: jax.Array, stride: int, cpu: bool) -> tuple[jax.Array, Residuals]:
    best, place = map_images(functools.partial(_maxima, stride=stride), IMAGES if cpu else x.shape[0], x)
    # x itself is no residual: an empty array carries its size.
    return best, (place, jnp.zeros((0, *x.shape[1:3])))


def _maxima(x: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Maximum of each window, and its place in it."""
    height, width = (-(-size // stride) for size in x.shape[1:3])
    padded = jnp.pad(x, _PADDING, constant_values=-jnp.inf)
    best = jnp.full((x.shape[0], height, width, x.shape[3]), -jnp.inf, x.dtype)
    place = jnp.full(best.shape, 4, jnp.int8)
    for tap, (i, j) in enumerate(_TAPS):
        window = padded[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
        # NaN must win, as it does in XLA's maximum.
        better = (window > best) | jnp.isnan(window)
        place = jnp.where(better, jnp.int8(tap), place)
        best = jnp.where(better, window, best)
    return best, place


def _max_backward(stride: int, cpu: bool, residuals: Residuals, cotangent: jax.Array) -> tuple[jax.Array]:
    place, like = residuals
    gradient = functools.partial(_max_gradient, stride=stride, size=like.shape[1:])
    return (map_images(gradient, IMAGES if cpu and stride == 1 else place.shape[0], place, cotangent),)


def _max_gradient(place: jax.Array, cotangent: jax.Array, stride: int, size: tuple[int, ...]) -> jax.Array:
    """For each phase of the stride the windows that meet its pixels; the phases are interleaved at the end."""
    batch, height, width, channels = cotangent.shape
    cotangent, place = jnp.pad(cotangent, _PADDING), jnp.pad(place, _PADDING, constant_values=-1)
    zero = jnp.zeros((), cotangent.dtype)
    phases = []
    for row_phase in range(stride):
        for column_phase in range(stride):
            total = zero
            for tap, (i, j) in enumerate(_TAPS):
                # Input row stride * r + phase is tap i of window r + (phase + 1 - i) / stride.
                down, down_rest = divmod(row_phase + 1 - i, stride)
                right, right_rest = divmod(column_phase + 1 - j, stride)
                if down_rest or right_rest:
                    continue
                rows, columns = slice(1 + down, 1 + down + height), slice(1 + right, 1 + right + width)
                total = total + jnp.where(place[:, rows, columns] == tap, cotangent[:, rows, columns], zero)
            phases.append(total)
    whole = jnp.stack(phases).reshape(stride, stride, batch, height, width, channels).transpose(2, 3, 0, 4, 1, 5)
    return whole.reshape(batch, height * stride, width * stride, channels)[:, : size[0], : size[1]]


_lean_max.defvjp(_max_forward, _max_backward)


def _window_counts(size: int, stride: int) -> np.ndarray:
    """Pixels of a side that each window meets, padding not counted."""
    starts = np.arange(0, size, stride)
    return np.minimum(starts + 1, size - 1) - np.maximum(starts - 1, 0) + 1


def avg_pool(x: jax.Array, stride: int) -> jax.Array:
    """Mean over each window of x (B, H, W, C), padding not counted."""
    counts = np.outer(_window_counts(x.shape[1], stride), _window_counts(x.shape[2], stride))

    def mean(x: jax.Array) -> jax.Array:
        total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, (1, 3, 3, 1), (1, stride, stride, 1), _PADDING)
        return total * jnp.asarray(1 / counts, x.dtype)[None, :, :, None]

    return keeping_arguments(mean)(x)

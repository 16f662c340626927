"""Batch normalisation by the statistics of the batch, with a backward pass of its own.

Two passes over the input forward (statistics, result), two over input and cotangent backward.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ghn_jax.networks.kernels.platform import STATISTICS, lean, on_cpu
from ghn_jax.networks.kernels.reductions import accumulator, channel_sums

Triple = tuple[jax.Array, jax.Array, jax.Array]
Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises x (B, H, W, C) over all but C; scale and bias (C,).

    Returns:
      The result in the type of x, the batch's mean and its biased variance (C,), at least float32. The statistics carry
      no gradient.
    """
    if lean():
        return _lean(x, scale, bias, epsilon, on_cpu())
    return plain_batch_norm(x, scale, bias, epsilon)


def plain_batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm` as the textbook writes it."""
    wide = x.astype(accumulator(x.dtype))
    axes = tuple(range(x.ndim - 1))
    mean = wide.mean(axes)
    var = jnp.square(wide - _rows(mean, x)).mean(axes)
    factor = jax.lax.rsqrt(var + epsilon) * scale
    out = wide * _rows(factor, x) + _rows(bias - mean * factor, x)
    return out.astype(x.dtype), jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def _rows(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _lean(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, cpu: bool) -> Triple:
    return _forward(x, scale, bias, epsilon, cpu)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, cpu: bool) -> tuple[Triple, Residuals]:
    count = x.size // x.shape[-1]
    wide = x.astype(accumulator(x.dtype))
    # Sums around one pixel's values: one pass, and no cancellation where the mean is far from zero.
    pivot = wide[(0,) * (x.ndim - 1)]
    centred = wide - _rows(pivot, x)
    first, second = channel_sums(centred, centred * centred, cpu=cpu)
    offset = first / count
    mean = checkpoint_name(offset + pivot, STATISTICS)
    var = jnp.maximum(second / count - offset * offset, 0)
    inverse = checkpoint_name(jax.lax.rsqrt(var + epsilon), STATISTICS)
    factor = inverse * scale
    out = (wide * _rows(factor, x) + _rows(bias - mean * factor, x)).astype(x.dtype)
    return (out, mean, var), (x, scale, mean, inverse)


def _backward(epsilon: float, cpu: bool, residuals: Residuals, cotangents: Triple) -> Triple:
    x, scale, mean, inverse = residuals
    count = x.size // x.shape[-1]
    cotangent = cotangents[0].astype(accumulator(x.dtype))
    wide = x.astype(accumulator(x.dtype)) - _rows(mean, x)
    # A plain reduction: on a CPU, XLA does not fuse into it, so that a cotangent that is itself computed is so once.
    of_bias = cotangent.reshape(-1, x.shape[-1]).sum(0)
    of_scale = channel_sums(cotangent * wide, cpu=cpu)[0] * inverse
    factor = scale * inverse
    # dx = factor * (dy - mean(dy) - normal * mean(dy * normal)), as dy * a + x * b + c
    slope = -factor * inverse * of_scale / count
    shift = -factor * of_bias / count
    of_x = cotangent * _rows(factor, x) + wide * _rows(slope, x) + _rows(shift, x)
    return of_x.astype(x.dtype), of_scale, of_bias


_lean.defvjp(_forward, _backward)

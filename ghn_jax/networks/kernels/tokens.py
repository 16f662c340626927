"""Linear layers of transformer blocks, after a layer normalisation or a GELU, with backward passes of their own.

Automatic differentiation writes each weight gradient as a product with a copied transpose, and keeps four arrays of the
input's size for a norm and five for a GELU. Here a layer keeps its input and what has one number for each token; what
the product reads is computed again.
"""

import functools
import math

import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.platform import lean, on_cpu
from ghn_jax.networks.kernels.reductions import accumulator, channel_sums

Pair = tuple[jax.Array, jax.Array]


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """X (.., C) times kernel (C, O), plus bias (O,): (.., O) in the type of x."""
    return _shifted((_linear if lean() else _times)(x, kernel), bias)


def gelu_linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Exact GELU of x (.., C), times kernel (C, O), plus bias (O,): (.., O) in the type of x."""
    return _shifted(_gelu_linear(x, kernel) if lean() else _times(jax.nn.gelu(x, approximate=False), kernel), bias)


def norm_linear(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    epsilon: float,
) -> jax.Array:
    """X (.., C) normalised over C, times scale, plus shift, both (C,); then as `linear`."""
    if lean():
        return _shifted(_norm_linear(x, (scale, shift), kernel, epsilon, on_cpu()), bias)
    return _shifted(_times(layer_norm(x, scale, shift, epsilon), kernel), bias)


def layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array, epsilon: float) -> jax.Array:
    """Normalises x (.., C) over C; scale and shift (C,)."""
    return _affine(_normalised(x, epsilon)[0], scale, shift).astype(x.dtype)


def _normalised(x: jax.Array, epsilon: float) -> tuple[jax.Array, Pair]:
    """X without its mean and deviation over C, in at least float32; the mean and the inverse deviation (.., 1)."""
    wide = x.astype(accumulator(x.dtype))
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return centred * inverse, (mean, inverse)


def _rows(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _affine(normal: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    return normal * _rows(scale, normal) + _rows(shift, normal)


def _shifted(x: jax.Array, bias: jax.Array | None) -> jax.Array:
    return x if bias is None else x + _rows(bias.astype(x.dtype), x)


def _gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Exact GELU of x and its derivative; by erf, which takes half the time of the erfc of `jax.nn.gelu`."""
    wide = x.astype(accumulator(x.dtype))
    probability = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return (wide * probability).astype(x.dtype), probability + wide * density


def _times(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel.astype(x.dtype)


def _times_gradients(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cotangents of x and kernel of `_times`."""
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    of_kernel = x.reshape(-1, x.shape[-1]).T @ flat
    return (flat @ kernel.astype(x.dtype).T).reshape(x.shape), of_kernel.astype(kernel.dtype)


@jax.custom_vjp
def _linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _times(x, kernel)


_linear.defvjp(
    lambda x, kernel: (_times(x, kernel), (x, kernel)),
    lambda residuals, cotangent: _times_gradients(residuals[0], residuals[1], cotangent),
)


@jax.custom_vjp
def _gelu_linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _times(_gelu(x)[0], kernel)


def _gelu_linear_backward(residuals: Pair, cotangent: jax.Array) -> Pair:
    x, kernel = residuals
    active, slope = _gelu(x)
    of_active, of_kernel = _times_gradients(active, kernel, cotangent)
    return (of_active * slope).astype(x.dtype), of_kernel


_gelu_linear.defvjp(lambda x, kernel: (_times(_gelu(x)[0], kernel), (x, kernel)), _gelu_linear_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _norm_linear(x: jax.Array, affine: Pair, kernel: jax.Array, epsilon: float, cpu: bool) -> jax.Array:
    return _norm_linear_forward(x, affine, kernel, epsilon, cpu)[0]


def _norm_linear_forward(
    x: jax.Array, affine: Pair, kernel: jax.Array, epsilon: float, cpu: bool
) -> tuple[jax.Array, tuple[jax.Array, Pair, jax.Array, Pair]]:
    normal, statistics = _normalised(x, epsilon)
    return _times(_affine(normal, *affine).astype(x.dtype), kernel), (x, affine, kernel, statistics)


def _norm_linear_backward(
    epsilon: float, cpu: bool, residuals: tuple[jax.Array, Pair, jax.Array, Pair], cotangent: jax.Array
) -> tuple[jax.Array, Pair, jax.Array]:
    x, (scale, shift), kernel, (mean, inverse) = residuals
    normal = (x.astype(mean.dtype) - mean) * inverse
    active = _affine(normal, scale, shift).astype(x.dtype)
    of_active, of_kernel = _times_gradients(active, kernel, cotangent)
    wide = of_active.astype(mean.dtype)
    of_shift, of_scale = channel_sums(wide, wide * normal, cpu=cpu)
    scaled = wide * _rows(scale, x)
    slope = (scaled * normal).mean(-1, keepdims=True)
    of_x = (scaled - scaled.mean(-1, keepdims=True) - normal * slope) * inverse
    return of_x.astype(x.dtype), (of_scale.astype(scale.dtype), of_shift.astype(shift.dtype)), of_kernel


_norm_linear.defvjp(_norm_linear_forward, _norm_linear_backward)

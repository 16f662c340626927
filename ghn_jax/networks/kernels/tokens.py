"""Layers of transformer blocks that work on each token by itself, with backward passes of their own on CPU.

Automatic differentiation writes each weight gradient as a product with a copied transpose and keeps four arrays of the
input's size for a norm. Here a layer keeps its input and what is small (`benchmark.py kernels`: the norm 1.6 times as
fast, the linear layer 1.0 alone; a whole block of width 128 gains 6 %).
"""

import functools

import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.platform import on_cpu
from ghn_jax.networks.kernels.precision import accumulator
from ghn_jax.networks.kernels.reductions import channel_sums

Arrays = tuple[jax.Array, ...]


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """X (.., C) times kernel (C, O), plus bias (O,): (.., O) in the type of x."""
    kernel = kernel.astype(x.dtype)
    out = (_linear if on_cpu() else jnp.matmul)(x, kernel)
    return out if bias is None else _shift(out, bias.astype(x.dtype))


@jax.custom_vjp
def _linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _linear_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Arrays]:
    return x @ kernel, (x, kernel)


def _linear_backward(residuals: Arrays, cotangent: jax.Array) -> Arrays:
    x, kernel = residuals
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    return (flat @ kernel.T).reshape(x.shape), x.reshape(-1, x.shape[-1]).T @ flat


_linear.defvjp(_linear_forward, _linear_backward)


def _shift(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalises x (B, T, C) over C; scale and bias (C,)."""
    return (_layer_norm if on_cpu() else plain_layer_norm)(x, scale, bias, epsilon)


def plain_layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """`layer_norm` as the textbook writes it."""
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    return plain_layer_norm(x, scale, bias, epsilon)


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, Arrays]:
    wide = x.astype(accumulator(x.dtype))
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    out = _shift(centred * inverse * scale.reshape(1, 1, -1), bias)
    return out.astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_backward(epsilon: float, residuals: Arrays, cotangent: jax.Array) -> Arrays:
    x, scale, mean, inverse = residuals
    wide = cotangent.astype(accumulator(x.dtype))
    normal = (x.astype(wide.dtype) - mean) * inverse
    of_bias, of_scale = channel_sums(wide, wide * normal)
    scaled = wide * scale.reshape(1, 1, -1)
    slope = (scaled * normal).mean(-1, keepdims=True)
    of_x = (scaled - scaled.mean(-1, keepdims=True) - normal * slope) * inverse
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)

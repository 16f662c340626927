"""Softmax attention of several heads with a backward pass of its own.

Tokens lie on the last axis: heads are as narrow as 4, and matrices of four columns waste a vector unit, while matrices of four rows
do not. The sum of each softmax comes out of the product with the values, as one more row of ones.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.networks.kernels.platform import on_cpu


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """Attention among T tokens: qkv (B, T, 3 C), each of its three parts (head, dim), to (B, T, C)."""
    return (_fast if on_cpu() else plain_attend)(qkv, heads)


def plain_attend(qkv: jax.Array, heads: int) -> jax.Array:
    """`attend` as the textbook writes it."""
    batch, count, width = qkv.shape
    dim = width // 3 // heads
    query, key, value = jnp.moveaxis(qkv.reshape(batch, count, 3, heads, dim), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * dim**-0.5
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, count, heads * dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _fast(qkv: jax.Array, heads: int) -> jax.Array:
    return _forward(qkv, heads)[0]


def _split(x: jax.Array, parts: int, heads: int) -> jax.Array:
    """(B, T, parts * C) to (parts, B, heads, dim, T)."""
    batch, count, width = x.shape
    return x.reshape(batch, count, parts, heads, width // parts // heads).transpose(2, 0, 3, 4, 1)


def _join(*parts: jax.Array) -> jax.Array:
    """Inverse of `_split`."""
    batch, heads, dim, count = parts[0].shape
    return jnp.stack(parts, 1).reshape(batch, len(parts) * heads * dim, count).transpose(0, 2, 1)


def _forward(qkv, heads):  # noqa: ANN
    query, key, value = lax.optimization_barrier(tuple(_split(qkv, 3, heads)))
    dim = query.shape[2]
    query = query * dim**-0.5
    scores = lax.optimization_barrier(jnp.einsum("bhdk,bhdq->bhkq", key, query).astype(jnp.float32))
    top = lax.optimization_barrier(scores.max(2, keepdims=True))
    weights = lax.optimization_barrier(jnp.exp(scores - top).astype(qkv.dtype))
    rows = jnp.concatenate([value, jnp.ones_like(value[:, :, :1])], 2)
    sums = jnp.einsum("bhdk,bhkq->bhdq", rows, weights)
    inverse = 1 / sums[:, :, -1:]
    out = lax.optimization_barrier(sums[:, :, :-1] * inverse)
    return _join(out), (query, key, value, weights, inverse, out)


def _backward(heads, residuals, cotangent):  # noqa: ANN
    query, key, value, weights, inverse, out = residuals
    cotangent = _split(cotangent, 1, heads)[0] * inverse
    mixed = (cotangent * out).sum(2, keepdims=True)
    cotangent, mixed = lax.optimization_barrier((cotangent, mixed))
    of_scores = weights * (jnp.einsum("bhdk,bhdq->bhkq", value, cotangent) - mixed)
    of_scores = lax.optimization_barrier(of_scores)
    of_value = jnp.einsum("bhdq,bhkq->bhdk", cotangent, weights)
    of_query = jnp.einsum("bhdk,bhkq->bhdq", key, of_scores) * query.shape[2] ** -0.5
    of_key = jnp.einsum("bhdq,bhkq->bhdk", query, of_scores)
    return (_join(of_query, of_key, of_value),)


_fast.defvjp(_forward, _backward)

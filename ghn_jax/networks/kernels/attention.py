"""Softmax attention of several heads with a backward pass of its own.

Tokens lie on the last axis: heads are as narrow as 4, and matrices of four columns waste a vector unit, while matrices
of four rows do not. The sum of each softmax comes out of the product with the values, as one more row of ones. A few
images at a time: their scores stay in the cache. They are not stored either but computed again on the way back, the one
recomputation of the runner: storing them was not faster (64 images of 11 x 11 tokens, width 128: 34 ms forward and
backward against 35) and holds 30 MB for every block. Against the textbook's form: 1.7 to 3 times as fast
(`python experiments/benchmark.py kernels`).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.networks.kernels.platform import on_cpu
from ghn_jax.networks.kernels.precision import accumulator

Residuals = tuple[jax.Array, jax.Array, jax.Array]

IMAGES = 4
"""Images whose scores are held at a time."""


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """Attention among T tokens: qkv (B, T, 3 C), each of its three parts (head, dim), to (B, T, C)."""
    return (_fast if on_cpu() else plain_attend)(qkv, heads)


def plain_attend(qkv: jax.Array, heads: int) -> jax.Array:
    """`attend` as the textbook writes it."""
    batch, count, width = qkv.shape
    dim = width // 3 // heads
    query, key, value = jnp.moveaxis(qkv.reshape(batch, count, 3, heads, dim), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * dim**-0.5
    weights = jax.nn.softmax(scores.astype(accumulator(scores.dtype)), axis=-1).astype(qkv.dtype)
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


def _forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, Residuals]:
    images = math.gcd(IMAGES, qkv.shape[0])
    chunks = qkv.reshape(-1, images, *qkv.shape[1:])
    out, levels = lax.map(lambda chunk: _chunk_forward(chunk, heads), chunks)
    return out.reshape(*qkv.shape[:2], -1), (chunks, out, levels)


def _chunk_forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array]:
    """Output of some images, and the logarithm of each softmax's denominator (B, heads, 1, T)."""
    query, key, value = _split(qkv, 3, heads)
    scores = _scores(query, key)
    top = scores.max(2, keepdims=True)
    weights = jnp.exp(scores - top).astype(qkv.dtype)
    rows = jnp.concatenate([value, jnp.ones_like(value[:, :, :1])], 2)
    sums = jnp.einsum("bhdk,bhkq->bhdq", rows, weights, preferred_element_type=accumulator(query.dtype))
    out = (sums[:, :, :-1] / sums[:, :, -1:]).astype(qkv.dtype)
    return _join(out), top + jnp.log(sums[:, :, -1:])


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Float32 scores (B, heads, T of keys, T of queries)."""
    query = query * jnp.asarray(query.shape[2] ** -0.5, query.dtype)
    return jnp.einsum("bhdk,bhdq->bhkq", key, query, preferred_element_type=accumulator(query.dtype))


def _backward(heads: int, residuals: Residuals, cotangent: jax.Array) -> tuple[jax.Array]:
    chunks, out, levels = residuals
    parts = (chunks, out, levels, cotangent.reshape(out.shape))
    gradient = lax.map(lambda part: _chunk_backward(*part, heads=heads), parts)
    return (gradient.reshape(*cotangent.shape[:2], -1),)


def _chunk_backward(
    qkv: jax.Array, out: jax.Array, levels: jax.Array, cotangent: jax.Array, *, heads: int
) -> jax.Array:
    """Cotangent of qkv; the softmax is computed again, which costs less than reading it from memory."""
    query, key, value = _split(qkv, 3, heads)
    split = _split(jnp.concatenate([out, cotangent], -1), 2, heads)
    mixed = (split[0].astype(accumulator(qkv.dtype)) * split[1]).sum(2, keepdims=True)
    cotangent = split[1]
    scores = _scores(query, key)
    weights = jnp.exp(scores - levels).astype(qkv.dtype)
    of_weights = jnp.einsum("bhdk,bhdq->bhkq", value, cotangent, preferred_element_type=accumulator(query.dtype))
    of_scores = (weights * (of_weights - mixed)).astype(qkv.dtype)
    of_value = jnp.einsum("bhdq,bhkq->bhdk", cotangent, weights)
    scale = jnp.asarray(query.shape[2] ** -0.5, query.dtype)
    of_query = jnp.einsum("bhdk,bhkq->bhdq", key, of_scores) * scale
    of_key = jnp.einsum("bhdq,bhkq->bhdk", query, of_scores) * scale
    return _join(of_query, of_key, of_value)


_fast.defvjp(_forward, _backward)

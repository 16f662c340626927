"""Softmax attention of several heads with backward passes of its own, which compute the scores again.

Scores are at least float32 whatever the type of the tokens: the exponential turns their rounding errors into relative
errors of the weights. They are not stored but computed again in the backward pass, the one product that is: on a CPU
storing them was not faster (64 images of 11 x 11 tokens, width 128: 34 ms forward and backward against 35), and for
256 tokens of width 32 they take 64 times what the layer's output takes.

On a CPU, tokens lie on the last axis: heads are as narrow as 4, and matrices of four columns waste a vector unit, while
matrices of four rows do not. The sum of each softmax comes out of the product with the values, as one more row of ones.
A few images at a time: their scores stay in the cache. `python experiments/benchmark.py kernels` compares this with the
textbook's form.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.networks.kernels.platform import lean, on_cpu
from ghn_jax.networks.kernels.reductions import accumulator

Residuals = tuple[jax.Array, jax.Array, jax.Array]

FORWARD_IMAGES = 4
BACKWARD_IMAGES = 2
"""Images whose scores a CPU holds at a time; the backward pass holds three such arrays."""

SLICES = 8
"""Parts of a column of scores that are compared before XLA's reduction."""


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """Attention among the T tokens of each image: qkv (B, .., 3 C), its three parts each (head, dim), to (B, .., C)."""
    if on_cpu():
        return _by_images(qkv, heads)
    return (_whole_batch if lean() else plain_attend)(qkv, heads)


def plain_attend(qkv: jax.Array, heads: int) -> jax.Array:
    """`attend` as the textbook writes it."""
    query, key, value = _heads(qkv, 3, heads)
    weights = jax.nn.softmax(_scores(query, key), axis=-1).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*qkv.shape[:-1], -1)


def _heads(x: jax.Array, parts: int, heads: int) -> jax.Array:
    """(B, .., parts * C) to (parts, B, T, heads, dim)."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, parts, heads, x.shape[-1] // parts // heads), 2, 0)


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Scores (B, heads, T of queries, T of keys) of queries and keys (B, T, heads, dim)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=accumulator(query.dtype))
    return scores * query.shape[-1] ** -0.5


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _whole_batch(qkv: jax.Array, heads: int) -> jax.Array:
    return _whole_forward(qkv, heads)[0]


def _whole_forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, Residuals]:
    query, key, value = _heads(qkv, 3, heads)
    scores = _scores(query, key)
    levels = jax.nn.logsumexp(scores, axis=-1)
    weights = jnp.exp(scores - levels[..., None]).astype(qkv.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*qkv.shape[:-1], -1)
    return out, (qkv, out, levels)


def _whole_backward(heads: int, residuals: Residuals, cotangent: jax.Array) -> tuple[jax.Array]:
    qkv, out, levels = residuals
    wide = functools.partial(jnp.einsum, preferred_element_type=levels.dtype)
    query, key, value = _heads(qkv, 3, heads)
    (cotangent,), (out,) = _heads(cotangent, 1, heads), _heads(out, 1, heads)
    weights = jnp.exp(_scores(query, key) - levels[..., None])
    of_weights = wide("bqhd,bkhd->bhqk", cotangent, value)
    mixed = wide("bqhd,bqhd->bhq", cotangent, out)
    of_scores = (weights * (of_weights - mixed[..., None])).astype(qkv.dtype)
    scale = query.shape[-1] ** -0.5
    gradients = (
        wide("bhqk,bkhd->bqhd", of_scores, key) * scale,
        wide("bhqk,bqhd->bkhd", of_scores, query) * scale,
        wide("bhqk,bqhd->bkhd", weights.astype(qkv.dtype), cotangent),
    )
    return (jnp.stack(gradients, 2).astype(qkv.dtype).reshape(qkv.shape),)


_whole_batch.defvjp(_whole_forward, _whole_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _by_images(qkv: jax.Array, heads: int) -> jax.Array:
    return _images_forward(qkv, heads)[0]


def _chunks(x: jax.Array, images: int) -> jax.Array:
    """(B, .., C) to (chunks, at most `images`, T, C)."""
    images = math.gcd(images, x.shape[0])
    return x.reshape(x.shape[0] // images, images, -1, x.shape[-1])


def _images_forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, Residuals]:
    out, levels = lax.map(lambda chunk: _chunk_forward(chunk, heads), _chunks(qkv, FORWARD_IMAGES))
    out = out.reshape(*qkv.shape[:-1], -1)
    return out, (qkv, out, levels.reshape(qkv.shape[0], heads, -1))


def _images_backward(heads: int, residuals: Residuals, cotangent: jax.Array) -> tuple[jax.Array]:
    qkv, out, levels = residuals
    parts = tuple(_chunks(array, BACKWARD_IMAGES) for array in (qkv, out, cotangent))
    levels = levels.reshape(*parts[0].shape[:2], heads, -1, 1)
    gradient = lax.map(lambda part: _chunk_backward(*part, heads=heads), (*parts, levels))
    return (gradient.reshape(qkv.shape),)


_by_images.defvjp(_images_forward, _images_backward)


def _split(x: jax.Array, parts: int, heads: int) -> jax.Array:
    """(B, T, parts * C) to (parts, B, heads, dim, T)."""
    batch, count, width = x.shape
    return x.reshape(batch, count, parts, heads, width // parts // heads).transpose(2, 0, 3, 4, 1)


def _join(*parts: jax.Array) -> jax.Array:
    """Inverse of `_split`."""
    batch, heads, dim, count = parts[0].shape
    return jnp.stack(parts, 1).reshape(batch, len(parts) * heads * dim, count).transpose(0, 2, 1)


def _column_maximum(scores: jax.Array) -> jax.Array:
    """Maximum over the axis of keys, which stays as 1.

    XLA's CPU reduction over an axis that is not the last is slow. Slices are compared first, which is elementwise; they
    may overlap.
    """
    count = scores.shape[2]
    length = -(-count // SLICES)
    starts = [min(length * index, count - length) for index in range(SLICES)]
    slices = [scores[:, :, start : start + length] for start in starts]
    return functools.reduce(jnp.maximum, slices).max(2, keepdims=True)


def _chunk_forward(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array]:
    """Output of some images, and the logarithm of each softmax's denominator (B, heads, 1, T)."""
    query, key, value = _split(qkv, 3, heads)
    scale = query.shape[2] ** -0.5
    scores = jnp.einsum("bhdk,bhdq->bhkq", key, query, preferred_element_type=accumulator(query.dtype))
    top = _column_maximum(scores)
    weights = jnp.exp((scores - top) * scale).astype(qkv.dtype)
    rows = jnp.concatenate([value, jnp.ones_like(value[:, :, :1])], 2)
    sums = jnp.einsum("bhdk,bhkq->bhdq", rows, weights, preferred_element_type=accumulator(query.dtype))
    out = (sums[:, :, :-1] / sums[:, :, -1:]).astype(qkv.dtype)
    return _join(out), top * scale + jnp.log(sums[:, :, -1:])


def _chunk_backward(
    qkv: jax.Array, out: jax.Array, cotangent: jax.Array, levels: jax.Array, *, heads: int
) -> jax.Array:
    """Cotangent of qkv; the softmax is computed again, which costs less than reading it from memory.

    Here queries are the rows of scores: two of the three products with them then read them as they lie.
    """
    query, key, value = _split(qkv, 3, heads)
    scale = query.shape[2] ** -0.5
    out, cotangent = _split(jnp.concatenate([out, cotangent], -1), 2, heads)
    mixed = (out.astype(levels.dtype) * cotangent).sum(2)[..., None]
    scores = jnp.einsum("bhdq,bhdk->bhqk", query, key, preferred_element_type=levels.dtype)
    weights = jnp.exp(scores * scale - levels).astype(qkv.dtype)
    of_weights = jnp.einsum("bhdq,bhdk->bhqk", cotangent, value, preferred_element_type=levels.dtype)
    of_scores = (weights * (of_weights - mixed)).astype(qkv.dtype)
    of_value = jnp.einsum("bhdq,bhqk->bhdk", cotangent, weights)
    of_key = jnp.einsum("bhdq,bhqk->bhdk", query, of_scores) * jnp.asarray(scale, qkv.dtype)
    of_query = jnp.einsum("bhdk,bhqk->bhdq", key, of_scores) * jnp.asarray(scale, qkv.dtype)
    return _join(of_query, of_key, of_value)

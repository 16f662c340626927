"""Softmax attention with a bias for each pair of nodes that depends on the edge between them (Graphormer).

The weights of a softmax are never kept: the backward pass computes them again from the logarithm of each row's sum. On
a CPU a few queries of one graph are attended at a time, so that their scores stay in the cache, and only as many as the
graph has nodes, not as its padding. Elsewhere the whole batch is one product.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.hypernet.dense import PRECISION

MASKED = -32768.0
"""Bias of a padded key."""

QUERIES = 64
"""That a CPU attends at a time."""

_product = functools.partial(jnp.einsum, precision=PRECISION)


def edge_labels(distances: jax.Array, cutoff: int) -> jax.Array:
    """Distances (G, N, N) from row to column, of acyclic graphs -> int32 (G, N, N), one of 2 cutoff + 1 cases.

    0 for no path either way, s for a path of length s from row to column, cutoff + s for one from column to row.
    """
    forward, backward = distances.astype(jnp.int32), jnp.swapaxes(distances, 1, 2).astype(jnp.int32)
    return jnp.where(forward > 0, forward, jnp.where(backward > 0, cutoff + backward, 0))


def gather_bias(table: jax.Array, labels: jax.Array, node_mask: jax.Array) -> jax.Array:
    """Table (L, heads), labels (G, N, N) and bool (G, N) of real nodes -> (G, heads, N, N), low for padded keys."""
    return jnp.where(node_mask[:, None, None], jnp.moveaxis(table[labels], 3, 1), MASKED)


@jax.custom_vjp
def attend(qkv: jax.Array, bias: jax.Array, num_nodes: jax.Array) -> jax.Array:
    """Attention among the nodes of each graph.

    Args:
      qkv: (G, N, 3 D), queries, keys and values, each by head.
      bias: (G, heads, N, N), added to the scores of query (row) and key (column).
      num_nodes: int (G,), real nodes of each graph.

    Returns:
      (G, N, D), of the type of `qkv`; what stands in padded rows means nothing.
    """
    return _forward(qkv, bias, num_nodes)[0]


def _forward(qkv: jax.Array, bias: jax.Array, num_nodes: jax.Array) -> tuple[jax.Array, tuple]:
    query, key, value = _split(qkv, 3, bias.shape[1])
    out, levels = lax.platform_dependent(
        query, key, value, bias, num_nodes, cpu=_forward_by_rows, default=lambda *given: _attend_rows(*given[:-1])
    )
    return _join(out), (qkv, bias, num_nodes, out, levels)


def _backward(residuals: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    qkv, bias, num_nodes, out, levels = residuals
    query, key, value = _split(qkv, 3, bias.shape[1])
    (cotangent,) = _split(cotangent, 1, bias.shape[1])
    *of_qkv, of_bias = lax.platform_dependent(
        (query, cotangent, out, levels, bias),
        (key, value),
        num_nodes,
        cpu=_backward_by_rows,
        default=lambda rows, whole, _: _differentiate_rows(rows, whole),
    )
    return jnp.concatenate([_join(part) for part in of_qkv], axis=-1).astype(qkv.dtype), of_bias, None


attend.defvjp(_forward, _backward)


def _split(x: jax.Array, parts: int, heads: int) -> tuple[jax.Array, ...]:
    """(G, N, parts * D) to parts of (G, heads, N, dim)."""
    split = x.reshape(*x.shape[:2], parts, heads, -1)
    return tuple(jnp.swapaxes(split[:, :, part], 1, 2) for part in range(parts))


def _join(x: jax.Array) -> jax.Array:
    """(G, heads, N, dim) to (G, N, D)."""
    return jnp.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


def _scores(query: jax.Array, key: jax.Array, bias: jax.Array) -> jax.Array:
    """Queries (.., heads, Q, dim), keys (.., heads, N, dim) and bias (.., heads, Q, N) -> as the bias."""
    scores = _product("...qd,...kd->...qk", query, key, preferred_element_type=bias.dtype)
    return scores / math.sqrt(query.shape[-1]) + bias


def _attend_rows(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output (.., heads, Q, dim) of some queries, and the logarithm of each softmax's denominator (.., heads, Q, 1)."""
    scores = _scores(query, key, bias)
    top = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    out = _product("...qk,...kd->...qd", weights.astype(value.dtype), value, preferred_element_type=bias.dtype)
    return (out / total).astype(value.dtype), top + jnp.log(total)


def _differentiate_rows(rows: tuple[jax.Array, ...], whole: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """Cotangents of some queries, of keys and values as far as these queries go, and of the queries' bias.

    Args:
      rows: of the queries: themselves, cotangent of the output, output (.., heads, Q, dim), logarithm of the
        denominator (.., heads, Q, 1), bias (.., heads, Q, N).
      whole: keys and values (.., heads, N, dim).
    """
    query, cotangent, out, levels, bias = rows
    key, value = whole
    wide = functools.partial(_product, preferred_element_type=bias.dtype)
    weights = jnp.exp(_scores(query, key, bias) - levels)
    of_weights = wide("...qd,...kd->...qk", cotangent, value)
    mean = (cotangent.astype(bias.dtype) * out.astype(bias.dtype)).sum(axis=-1, keepdims=True)
    of_bias = weights * (of_weights - mean)
    of_scores = (of_bias / math.sqrt(query.shape[-1])).astype(query.dtype)
    of_query = wide("...qk,...kd->...qd", of_scores, key)
    of_key = wide("...qk,...qd->...kd", of_scores, query)
    of_value = wide("...qk,...qd->...kd", weights.astype(query.dtype), cotangent)
    return of_query, of_key, of_value, of_bias


def _queries_at_once(nodes: int) -> int:
    return QUERIES if nodes % QUERIES == 0 else nodes


def _take(x: jax.Array, start: jax.Array, count: int) -> jax.Array:
    """Rows of queries of (heads, N, ..)."""
    return lax.dynamic_slice_in_dim(x, start, count, axis=1)


def _put(x: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, rows, start, axis=1)


def _forward_by_rows(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, num_nodes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_attend_rows` of all real queries of each graph; zeros for others."""
    count = _queries_at_once(query.shape[2])

    def graph(given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        query, key, value, bias, nodes = given

        def some(number: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            start = number * count
            rows = _attend_rows(_take(query, start, count), key, value, _take(bias, start, count))
            return _put(found[0], rows[0], start), _put(found[1], rows[1], start)

        nothing = jnp.zeros_like(query), jnp.zeros((*query.shape[:2], 1), bias.dtype)
        return lax.fori_loop(0, -(-nodes // count), some, nothing)

    return lax.map(graph, (query, key, value, bias, num_nodes))


def _backward_by_rows(
    rows: tuple[jax.Array, ...], whole: tuple[jax.Array, jax.Array], num_nodes: jax.Array
) -> tuple[jax.Array, ...]:
    """`_differentiate_rows` of all real queries of each graph; zeros for others."""
    count = _queries_at_once(rows[0].shape[2])

    def graph(given: tuple) -> tuple[jax.Array, ...]:
        rows, whole, nodes = given

        def some(number: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            start = number * count
            own = tuple(_take(part, start, count) for part in rows)
            of_query, of_key, of_value, of_bias = _differentiate_rows(own, whole)
            return (
                _put(found[0], of_query, start),
                found[1] + of_key,
                found[2] + of_value,
                _put(found[3], of_bias, start),
            )

        of_dim = jnp.zeros(rows[0].shape, rows[4].dtype)
        return lax.fori_loop(0, -(-nodes // count), some, (of_dim, of_dim, of_dim, jnp.zeros_like(rows[4])))

    return lax.map(graph, (rows, whole, num_nodes))

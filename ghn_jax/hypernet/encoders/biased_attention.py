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
"""Score of a padded key."""

QUERIES = 64
"""That a CPU attends at a time."""

_product = functools.partial(jnp.einsum, precision=PRECISION)


def edge_labels(distances: jax.Array, cutoff: int) -> jax.Array:
    """Distances (G, N, N) from row to column, of acyclic graphs -> int32 (G, N, N), one of 2 cutoff + 1 cases.

    0 for no path either way, s for a path of length s from row to column, cutoff + s for one from column to row.
    """
    forward, backward = distances.astype(jnp.int32), jnp.swapaxes(distances, 1, 2).astype(jnp.int32)
    return jnp.where(forward > 0, forward, jnp.where(backward > 0, cutoff + backward, 0))


@jax.custom_vjp
def attend(qkv: jax.Array, table: jax.Array, labels: jax.Array, num_nodes: jax.Array) -> jax.Array:
    """Attention among the nodes of each graph.

    Args:
      qkv: (G, N, 3 D), queries, keys and values, each by head.
      table: (L, heads), added to the scores of query and key by their label.
      labels: int32 (G, N, N) of query (row) and key (column), below L.
      num_nodes: int (G,), real nodes of each graph.

    Returns:
      (G, N, D), of the type of `qkv`; what stands in padded rows means nothing.
    """
    return _forward(qkv, table, labels, num_nodes)[0]


def _forward(
    qkv: jax.Array, table: jax.Array, labels: jax.Array, num_nodes: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    query, key, value = _split(qkv, 3, table.shape[1])
    out, levels = lax.platform_dependent(
        (query, labels), (key, value, num_nodes), table, cpu=_forward_by_rows, default=_attend_rows
    )
    return _join(out), (qkv, table, labels, num_nodes, out, levels)


def _backward(residuals: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, jax.Array, None, None]:
    qkv, table, labels, num_nodes, out, levels = residuals
    query, key, value = _split(qkv, 3, table.shape[1])
    (cotangent,) = _split(cotangent, 1, table.shape[1])
    *of_qkv, of_table = lax.platform_dependent(
        (query, labels, cotangent, out, levels),
        (key, value, num_nodes),
        table,
        cpu=_backward_by_rows,
        default=_differentiate_rows,
    )
    return jnp.concatenate([_join(part) for part in of_qkv], axis=-1).astype(qkv.dtype), of_table, None, None


attend.defvjp(_forward, _backward)

Rows = tuple[jax.Array, ...]
"""Of some queries, of a graph or of all: themselves (.., heads, Q, dim), labels (.., Q, N); for the backward pass also
cotangent and output (.., heads, Q, dim) and the logarithm of each softmax's denominator (.., heads, Q, 1)."""

Whole = tuple[jax.Array, jax.Array, jax.Array]
"""Keys and values (.., heads, N, dim), and the number of those that count (..)."""


def _split(x: jax.Array, parts: int, heads: int) -> tuple[jax.Array, ...]:
    """(G, N, parts * D) to parts of (G, heads, N, dim)."""
    split = x.reshape(*x.shape[:2], parts, heads, -1)
    return tuple(jnp.swapaxes(split[:, :, part], 1, 2) for part in range(parts))


def _join(x: jax.Array) -> jax.Array:
    """(G, heads, N, dim) to (G, N, D)."""
    return jnp.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


def _scores(query: jax.Array, labels: jax.Array, whole: Whole, table: jax.Array) -> jax.Array:
    """(.., heads, Q, N), of the type of the table."""
    key, _, num_nodes = whole
    scores = _product("...qd,...kd->...qk", query, key, preferred_element_type=table.dtype)
    scores = scores / math.sqrt(query.shape[-1]) + jnp.moveaxis(table.T[:, labels], 0, -3)
    nodes = jnp.arange(key.shape[-2]).reshape(*(1,) * num_nodes.ndim, -1)
    counts = nodes < num_nodes[..., None]
    return jnp.where(counts[..., None, None, :], scores, MASKED)


def _attend_rows(rows: Rows, whole: Whole, table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output of some queries and the logarithm of each softmax's denominator."""
    query, labels = rows
    value = whole[1]
    scores = _scores(query, labels, whole, table)
    top = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    out = _product("...qk,...kd->...qd", weights.astype(value.dtype), value, preferred_element_type=table.dtype)
    return (out / total).astype(value.dtype), top + jnp.log(total)


def _differentiate_rows(rows: Rows, whole: Whole, table: jax.Array) -> tuple[jax.Array, ...]:
    """Cotangents of some queries, and of keys, values and the table as far as these queries go."""
    query, labels, cotangent, out, levels = rows
    key, value, _ = whole
    wide = functools.partial(_product, preferred_element_type=table.dtype)
    weights = jnp.exp(_scores(query, labels, whole, table) - levels)
    of_weights = wide("...qd,...kd->...qk", cotangent, value)
    mean = (cotangent.astype(table.dtype) * out.astype(table.dtype)).sum(axis=-1, keepdims=True)
    of_bias = weights * (of_weights - mean)
    of_scores = (of_bias / math.sqrt(query.shape[-1])).astype(query.dtype)
    of_query = wide("...qk,...kd->...qd", of_scores, key)
    of_key = wide("...qk,...qd->...kd", of_scores, query)
    of_value = wide("...qk,...qd->...kd", weights.astype(query.dtype), cotangent)
    of_table = jnp.zeros_like(table).at[labels].add(jnp.moveaxis(of_bias, -3, -1))
    return of_query, of_key, of_value, of_table


def _queries_at_once(nodes: int) -> int:
    return QUERIES if nodes % QUERIES == 0 else nodes


def _take(rows: Rows, start: jax.Array, count: int) -> Rows:
    """Some queries of a graph: every array of `Rows` has them on its last axis but one."""
    return tuple(lax.dynamic_slice_in_dim(part, start, count, axis=part.ndim - 2) for part in rows)


def _put(x: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, rows, start, axis=1)


def _forward_by_rows(rows: Rows, whole: Whole, table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_attend_rows` of all real queries of each graph; zeros for others."""
    count = _queries_at_once(rows[0].shape[2])

    def graph(given: tuple[Rows, Whole]) -> tuple[jax.Array, jax.Array]:
        rows, whole = given

        def some(number: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            start = number * count
            out, levels = _attend_rows(_take(rows, start, count), whole, table)
            return _put(found[0], out, start), _put(found[1], levels, start)

        nothing = jnp.zeros_like(rows[0]), jnp.zeros((*rows[0].shape[:2], 1), table.dtype)
        return lax.fori_loop(0, -(-whole[2] // count), some, nothing)

    return lax.map(graph, (rows, whole))


def _backward_by_rows(rows: Rows, whole: Whole, table: jax.Array) -> tuple[jax.Array, ...]:
    """`_differentiate_rows` of all real queries of each graph; zeros for others."""
    count = _queries_at_once(rows[0].shape[2])

    def graph(of_table: jax.Array, given: tuple[Rows, Whole]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        rows, whole = given

        def some(number: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            start = number * count
            of_query, *of_others = _differentiate_rows(_take(rows, start, count), whole, table)
            return _put(found[0], of_query, start), *(a + b for a, b in zip(found[1:], of_others, strict=True))

        nothing = (jnp.zeros(rows[0].shape, table.dtype),) * 3
        *of_qkv, of_table = lax.fori_loop(0, -(-whole[2] // count), some, (*nothing, of_table))
        return of_table, tuple(of_qkv)

    of_table, of_qkv = lax.scan(graph, jnp.zeros_like(table), (rows, whole))
    return *of_qkv, of_table

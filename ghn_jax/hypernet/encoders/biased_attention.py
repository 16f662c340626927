"""Softmax attention with a bias for each pair of nodes that depends on the edge between them (Graphormer)."""

import math

import jax
import jax.numpy as jnp

from ghn_jax.hypernet.dense import PRECISION

MASKED = -32768.0
"""Score of a padded key."""


def edge_labels(distances: jax.Array, cutoff: int) -> jax.Array:
    """Distances (G, N, N) from row to column, of acyclic graphs -> int32 (G, N, N), one of 2 cutoff + 1 cases.

    0 for no path either way, s for a path of length s from row to column, cutoff + s for one from column to row.
    """
    forward, backward = distances.astype(jnp.int32), jnp.swapaxes(distances, 1, 2).astype(jnp.int32)
    return jnp.where(forward > 0, forward, jnp.where(backward > 0, cutoff + backward, 0))


def gather_bias(table: jax.Array, labels: jax.Array) -> jax.Array:
    """Table (L, heads) and labels (G, N, N) -> (G, heads, N, N)."""
    return jnp.moveaxis(table[labels], 3, 1)


def attend(qkv: jax.Array, bias: jax.Array, node_mask: jax.Array) -> jax.Array:
    """Attention among the nodes of each graph.

    Args:
      qkv: (G, N, 3 D), queries, keys and values, each by head.
      bias: (G, heads, N, N), added to the scores of query (row) and key (column).
      node_mask: bool (G, N) of the keys that count.

    Returns:
      (G, N, D), of the type of `qkv`.
    """
    heads = bias.shape[1]
    query, key, value = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, -1), 2, 0)
    scores = jnp.einsum("gqhd,gkhd->ghqk", query, key, precision=PRECISION, preferred_element_type=bias.dtype)
    scores = scores / math.sqrt(query.shape[-1]) + bias
    weights = jax.nn.softmax(jnp.where(node_mask[:, None, None], scores, MASKED), axis=-1).astype(qkv.dtype)
    return jnp.einsum("ghqk,gkhd->gqhd", weights, value, precision=PRECISION).reshape(*qkv.shape[:2], -1)

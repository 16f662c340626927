"""Mimetic initialisation of attention (Trockman & Kolter, ICML 2023): weights that look like trained ones."""

import math

import jax
import jax.numpy as jnp

from ghn_jax.deepnets.recipes import HEADS
from ghn_jax.graphs import ArchGraph
from ghn_jax.training.starts import Given, Params, he, start

SIMILAR, RANDOM = 0.7, 0.7
"""Query times key is close to the first times the identity, plus the second times noise."""

OPPOSITE, RANDOM_OUT = 0.4, 0.4
"""Value times projection is close to minus the first times the identity, plus the second times noise."""


@start("mimetic")
def mimetic(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """As `he`, but for attention: queries resemble keys, and what is read is taken away from what is there.

    Only networks of DeepNets-1M are known here: their blocks hold a kernel ``to_qkv`` (C, 3 C), queries, keys and
    values of all heads in turn, and a kernel ``to_out_0`` (C, C).
    """
    params = he(graph, key, given)
    for place, spec in enumerate(graph.params):
        if spec.path[-2:] != ("to_qkv", "kernel"):
            continue
        out = (*spec.path[:-2], "to_out_0", "kernel")
        if params[spec.path].shape[1] != 3 * params[spec.path].shape[0] or out not in params:
            continue
        width = params[spec.path].shape[0]
        keys = jax.random.split(jax.random.fold_in(key, len(graph.params) + place), HEADS + 1)
        queries, others = _queries_and_keys(keys[:HEADS], width)
        values, params[out] = factors(
            RANDOM_OUT * jax.random.normal(keys[HEADS], (width, width)) / math.sqrt(width) - OPPOSITE * jnp.eye(width),
            width,
        )
        params[spec.path] = jnp.concatenate([queries, others, values], axis=1)
    return params


def _queries_and_keys(keys: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Kernels (C, C) of queries and keys, head by head."""
    queries, others = [], []
    for key in keys:
        noise = RANDOM * jax.random.normal(key, (width, width)) / math.sqrt(width)
        query, other = factors(noise + SIMILAR * jnp.eye(width), width // HEADS)
        queries.append(query)
        others.append(other.T)
    return jnp.concatenate(queries, axis=1), jnp.concatenate(others, axis=1)


def factors(matrix: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """Two matrices (C, rank) and (rank, C), alike in size, whose product best approximates a matrix (C, C)."""
    left, sizes, right = jnp.linalg.svd(matrix)
    roots = jnp.sqrt(sizes[:rank])
    return left[:, :rank] * roots[None, :], roots[:, None] * right[:rank]

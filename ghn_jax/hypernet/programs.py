"""The compiled programs of prediction: this is the edge at which the hypernetwork's pure functions are compiled.

A whole prediction is a chain of small programs that are reused across architectures: one for the states of a padded
batch, one for each (slab shape, chunk size), one for each kind of tensor. Their number stays bounded because all
three come from small sets.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.param_spec import Role
from ghn_jax.hypernet.fitting import TensorKind, fit_kernel, fit_vector
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.grouping import CLASSIFIERS, KERNELS, VECTORS, GroupKey

Variables = Any
"""A pytree {"params": ...} of the hypernetwork's weights, or its gradient."""

VECTORS_AT_ONCE = 16
"""Vectors of one shape that one call fits."""


@functools.cache
def embed_program(ghn: GHN) -> Callable[..., jax.Array]:
    """(variables, batch) -> states (G, N, D)."""
    return jax.jit(lambda variables, batch: ghn.apply(variables, batch))


@functools.cache
def embed_with_vjp_program(ghn: GHN) -> Callable[..., tuple[jax.Array, Callable]]:
    """(variables, batch) -> states (G, N, D) and their vjp, a pytree of residuals for `apply_vjp`."""
    return jax.jit(lambda variables, batch: jax.vjp(lambda v: ghn.apply(v, batch), variables))


@jax.jit
def apply_vjp(vjp: Callable, cotangent: jax.Array) -> Variables:
    """Cotangent of the states -> gradient of the variables."""
    return vjp(cotangent)[0]


@jax.jit
def take_rows(states: jax.Array, nodes: jax.Array) -> jax.Array:
    """States (G, N, D) and rows (B,) of their flattened form -> (B, D)."""
    return states.reshape(-1, states.shape[-1])[nodes]


@functools.partial(jax.jit, donate_argnums=0)
def add_rows(total: jax.Array, rows: jax.Array, nodes: jax.Array) -> jax.Array:
    """Adds (B, D) to rows (B,) of the flattened (G, N, D)."""
    return total.reshape(-1, total.shape[-1]).at[nodes].add(rows).reshape(total.shape)


@jax.jit
def zeros_like(tree: Any) -> Any:
    """A pytree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)


@functools.cache
def zero_row(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros for a row of a chunk without a cotangent."""
    return np.zeros(shape, np.float32)


def module_name(key: GroupKey) -> str:
    """Name of the weights that a group's decoder uses."""
    return "decoder" if key.has_slabs else "decoder_1d"


def _decode(ghn: GHN, key: GroupKey, weights: Variables, rows: jax.Array) -> jax.Array:
    variables = {"params": {module_name(key): weights}}
    if key.decoder == KERNELS:
        return ghn.apply(variables, rows, key.slab, method=GHN.decode_kernels)
    if key.decoder == CLASSIFIERS:
        return ghn.apply(variables, rows, key.slab[2], method=GHN.decode_classifier)
    method = GHN.decode_vectors if key.decoder == VECTORS else GHN.decode_classifier_bias
    return ghn.apply(variables, rows, method=method)


@functools.cache
def decode_program(ghn: GHN, key: GroupKey) -> Callable[..., Any]:
    """(weights of the decoder, rows (B, D)) -> B slabs (kh, kw, in, out), or vectors in one array (B, 2, n).

    Slabs come one by one so that the programs that fit them do not depend on the size of the chunk.
    """

    def decode(weights: Variables, rows: jax.Array) -> Any:
        slab = _decode(ghn, key, weights, rows)
        return tuple(slab) if key.has_slabs else slab

    return jax.jit(decode)


@functools.cache
def decode_backward_program(ghn: GHN, key: GroupKey) -> Callable[..., tuple[Variables, jax.Array]]:
    """(gradient so far, weights, rows (B, D), slab's cotangent: an array or its B rows) -> (gradient, rows' cotangent).

    The hidden layers are computed again instead of kept: they cost a few per cent of the products with the slab's cotangent.
    """

    def backward(total: Variables, weights: Variables, rows: jax.Array, slab: Any) -> tuple[Variables, jax.Array]:
        cotangent = jnp.stack(slab) if isinstance(slab, tuple) else slab
        gradient, to_rows = jax.vjp(functools.partial(_decode, ghn, key), weights, rows)[1](cotangent)
        return jax.tree.map(jnp.add, total, gradient), to_rows

    return jax.jit(backward, donate_argnums=0)


@functools.cache
def fit_kernel_program(ghn: GHN, kind: TensorKind) -> Callable[[jax.Array], jax.Array]:
    """Slab (kh, kw, in, out) -> tensor."""
    return jax.jit(functools.partial(fit_kernel, ghn.config, kind))


@functools.cache
def fold_kernel_program(ghn: GHN, kind: TensorKind, row_shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """Cotangent of a tensor -> cotangent of its slab row (kh, kw, in, out): the transpose of fitting."""
    row = jax.ShapeDtypeStruct(row_shape, jnp.float32)
    fit = functools.partial(fit_kernel, ghn.config, kind)
    return jax.jit(lambda cotangent: jax.linear_transpose(fit, row)(cotangent)[0])


def _fit_vectors(ghn: GHN, shape: tuple[int, ...], rows: jax.Array, is_scale: jax.Array) -> jax.Array:
    """Decoded (V, 2, n) and bool (V,) -> (V, *shape), weights of norm layers or biases."""
    fits = (
        jax.vmap(functools.partial(fit_vector, ghn.config, TensorKind(role, shape, "O" * len(shape))))(rows)
        for role in (Role.SCALE, Role.BIAS)
    )
    return jnp.where(is_scale.reshape(-1, *[1] * len(shape)), *fits)


@functools.cache
def fit_vectors_program(ghn: GHN, shape: tuple[int, ...]) -> Callable[..., tuple[jax.Array, ...]]:
    """(slab (B, 2, n), rows int (V,), whether each is a norm weight bool (V,)) -> V tensors of one shape."""

    def fit(slab: jax.Array, rows: jax.Array, is_scale: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(_fit_vectors(ghn, shape, slab[rows], is_scale))

    return jax.jit(fit)


@functools.cache
def fold_vectors_program(ghn: GHN, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """(slab's cotangent so far, slab, rows, norm weights as above, V cotangents) -> slab's cotangent.

    Rows out of range are padding: their cotangents are dropped.
    """

    def fold(
        total: jax.Array, slab: jax.Array, rows: jax.Array, is_scale: jax.Array, cotangents: tuple[jax.Array, ...]
    ) -> jax.Array:
        fit = functools.partial(_fit_vectors, ghn, shape, is_scale=is_scale)
        (to_rows,) = jax.vjp(fit, slab[jnp.minimum(rows, len(slab) - 1)])[1](jnp.stack(cotangents))
        return total.at[rows].add(to_rows, mode="drop")

    return jax.jit(fold, donate_argnums=0)


def row_shape(ghn: GHN, key: GroupKey) -> tuple[int, ...]:
    """Shape of one row of a group's slab."""
    if not key.has_slabs:
        return (2, ghn.config.vector_size if key.decoder == VECTORS else ghn.config.num_classes)
    return key.slab



"""The compiled programs of prediction: this is the edge at which the hypernetwork's pure functions are compiled.

A whole prediction is a chain of small programs that are reused across architectures: one for the states of a padded
batch, one for each (slab shape, chunk size), one for each kind of tensor. Their number stays bounded because all
three come from small sets.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.param_spec import Role
from ghn_jax.hypernet.decoders.fitting import TensorKind, fit_kernel, fit_vector
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.grouping import CLASSIFIERS, KERNELS, VECTORS, GroupKey

_Function = TypeVar("_Function", bound=Callable[..., Any])


def cached(function: _Function) -> _Function:
    """`functools.cache` that keeps the function's type (a Flax module is hashable, though its type does not say so)."""
    return cast(_Function, functools.cache(function))


Variables = Any
"""A pytree {"params": ...} of the hypernetwork's weights, or its gradient."""


@cached
def embed_program(ghn: GHN) -> Callable[..., jax.Array]:
    """(variables, batch) -> states (G, N, D)."""
    return jax.jit(ghn.apply)


@cached
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


@jax.jit
def take_slab(slabs: jax.Array, row: jax.Array) -> jax.Array:
    """(B, kh, kw, in, out) -> slab of one row. Apart from fitting, whose programs then do not depend on B."""
    return slabs[row]


@functools.partial(jax.jit, donate_argnums=0)
def put_slab(slabs: jax.Array, slab: jax.Array, row: jax.Array) -> jax.Array:
    """Sets one row of (B, kh, kw, in, out)."""
    return slabs.at[row].set(slab)


@cached
def zeros_program(shape: tuple[int, ...]) -> Callable[[], jax.Array]:
    """() -> zeros."""
    return jax.jit(lambda: jnp.zeros(shape))


def module_name(key: GroupKey) -> str:
    """Name of the weights that a group's decoder uses."""
    return "decoder" if key.has_slabs else "decoder_1d"


def _decode(ghn: GHN, key: GroupKey, weights: Variables, rows: jax.Array) -> Any:
    variables = {"params": {module_name(key): weights}}
    if key.decoder == KERNELS:
        return ghn.apply(variables, rows, key.slab, method=GHN.decode_kernels)
    if key.decoder == CLASSIFIERS:
        return ghn.apply(variables, rows, key.slab[2], method=GHN.decode_classifier)
    method = GHN.decode_vectors if key.decoder == VECTORS else GHN.decode_classifier_bias
    return ghn.apply(variables, rows, method=method)


@cached
def decode_program(ghn: GHN, key: GroupKey) -> Callable[..., jax.Array]:
    """(weights of the decoder, rows (B, D)) -> slabs (B, kh, kw, in, out), or vectors (B, 2, n)."""
    return jax.jit(functools.partial(_decode, ghn, key))


@cached
def decode_backward_program(ghn: GHN, key: GroupKey) -> Callable[..., tuple[Variables, jax.Array]]:
    """(gradient so far, weights, rows (B, D), cotangent of what was decoded) -> (gradient, rows' cotangent).

    The hidden layers are computed again instead of kept: they cost a few per cent of the products that follow.
    """

    def backward(
        total: Variables, weights: Variables, rows: jax.Array, cotangent: jax.Array
    ) -> tuple[Variables, jax.Array]:
        gradient, to_rows = jax.vjp(functools.partial(_decode, ghn, key), weights, rows)[1](cotangent)
        return jax.tree.map(jnp.add, total, gradient), to_rows

    return jax.jit(backward, donate_argnums=0)


@cached
def fit_kernel_program(ghn: GHN, kind: TensorKind) -> Callable[[jax.Array], jax.Array]:
    """Slab (kh, kw, in, out) -> tensor."""
    return jax.jit(functools.partial(fit_kernel, ghn.config, kind))


@cached
def fold_kernel_program(ghn: GHN, kind: TensorKind, row_shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """Cotangent of a tensor -> cotangent of its slab row (kh, kw, in, out): the transpose of fitting."""
    row = jax.ShapeDtypeStruct(row_shape, jnp.float32)
    fit = functools.partial(fit_kernel, ghn.config, kind)
    return jax.jit(lambda cotangent: jax.linear_transpose(fit, row)(cotangent)[0])


def _fit_vector(ghn: GHN, shape: tuple[int, ...], values: jax.Array, is_scale: jax.Array) -> jax.Array:
    """Decoded (n,) -> one tensor, the weight of a norm layer or a bias."""
    fits = (
        fit_vector(ghn.config, TensorKind(role, shape, "O" * len(shape)), values) for role in (Role.SCALE, Role.BIAS)
    )
    return jnp.where(is_scale, *fits)


def vector_place(row: int, role: Role) -> np.int32:
    """Place of a vector in a decoded (B, 2, n), flattened to (2 B, n)."""
    return np.int32(2 * row + (role is not Role.SCALE))


@cached
def fit_vector_program(ghn: GHN, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """(decoded (B, 2, n), place as of `vector_place`) -> one tensor; the same program for norm weights and biases."""

    def fit(decoded: jax.Array, place: jax.Array) -> jax.Array:
        values = decoded.reshape(-1, decoded.shape[-1])[place]
        return _fit_vector(ghn, shape, values, place % 2 == 0)

    return jax.jit(fit)


@cached
def fold_vector_program(ghn: GHN, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    """(cotangent of the decoded so far, decoded (B, 2, n), place, a tensor's cotangent) -> cotangent of the decoded."""

    def fold(total: jax.Array, decoded: jax.Array, place: jax.Array, cotangent: jax.Array) -> jax.Array:
        values = decoded.reshape(-1, decoded.shape[-1])[place]
        fit = functools.partial(_fit_vector, ghn, shape, is_scale=place % 2 == 0)
        (to_values,) = jax.vjp(fit, values)[1](cotangent)
        return total.reshape(-1, total.shape[-1]).at[place].set(to_values).reshape(total.shape)

    return jax.jit(fold, donate_argnums=0)


def row_shape(ghn: GHN, key: GroupKey) -> tuple[int, ...]:
    """Shape of one row of a group's slab."""
    if not key.has_slabs:
        return (2, ghn.config.vector_size if key.decoder == VECTORS else ghn.config.num_classes)
    return key.slab

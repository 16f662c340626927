"""The compiled programs of prediction: this is the edge at which the hypernetwork's pure functions are compiled.

A whole prediction is a chain of small programs that are reused across architectures: one for the states of a padded
batch, one for each (group of tensors, chunk size), one for each kind of tensor. All three come from small sets: the
first 800 training networks at drawn widths have 22 groups, 63 pairs of group and size, and 322 kinds, most of which
the first 80 have already. Whatever else is predicted, the least recently used are dropped beyond a fixed number.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import ParamSpec
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.protocols import DecodingKey

Weights = dict[str, Any]
"""A part of the hypernetwork's weights, as `split_weights` gives them."""

Device: TypeAlias = Any
"""A jax.Device, which type checkers take for a variable."""

MOST_ENCODINGS, MOST_GROUPS, MOST_KINDS = 16, 64, 1024
"""Hypernetworks, groups and kinds whose programs are held. On CPU a program of a kind takes 3 memory mappings, those of
a group 13 and 41 (forward and backward) for each chunk size: at most a third of what Linux allows a process."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def most_recent(most: int) -> Callable[[_Function], _Function]:
    """`functools.lru_cache` that keeps the function's type.

    A jitted function that is dropped gives back its programs, and their memory mappings, when nobody calls it any more.
    """
    return lambda function: cast(_Function, functools.lru_cache(most)(function))


@most_recent(MOST_ENCODINGS)
def embed_program(ghn: GHN) -> Callable[..., jax.Array]:
    """(variables, batch) -> states (G, N, D)."""
    return jax.jit(ghn.embed)


@most_recent(MOST_ENCODINGS)
def embed_with_vjp_program(ghn: GHN) -> Callable[..., tuple[jax.Array, Callable]]:
    """(weights of the encoder, batch) -> states (G, N, D) and their vjp, a pytree of residuals for `apply_vjp`."""
    return jax.jit(lambda weights, batch: jax.vjp(lambda w: ghn.embed({"params": w}, batch), weights))


@most_recent(MOST_GROUPS)
def decode_program(ghn: GHN, key: DecodingKey) -> Callable[..., jax.Array]:
    """(weights of the decoder, rows (B, D)) -> (B, ...), what tensors are cut from."""
    return jax.jit(lambda weights, rows: ghn.decode({"params": weights}, rows, key))


@most_recent(MOST_GROUPS)
def decode_backward_program(ghn: GHN, key: DecodingKey) -> Callable[..., tuple[Weights, jax.Array]]:
    """(gradient so far, weights, rows (B, D), B cotangents of decoded rows, bool (B,)) -> (gradient, rows' cotangent).

    Cotangents whose flag is False count as zero. The hidden layers are computed again instead of kept: they cost a few
    per cent of the products that follow.
    """

    def backward(
        total: Weights, weights: Weights, rows: jax.Array, cotangents: Sequence[jax.Array], given: jax.Array
    ) -> tuple[Weights, jax.Array]:
        _, vjp = jax.vjp(lambda w, r: ghn.decode({"params": w}, r, key), weights, rows)
        cotangent = jnp.stack(cotangents)
        given = given.reshape(-1, *(1,) * (cotangent.ndim - 1))
        gradient, to_rows = vjp(jnp.where(given, cotangent, 0.0))
        return jax.tree.map(jnp.add, total, gradient), to_rows

    return jax.jit(backward, donate_argnums=0)


@most_recent(MOST_KINDS)
def fit_program(ghn: GHN, kind: ParamSpec) -> Callable[[jax.Array], jax.Array]:
    """Decoded row -> tensor."""
    return jax.jit(functools.partial(ghn.decoder.fit, spec=kind))


class FitBackward(NamedTuple):
    """Backward pass of fitting: (row, cotangent of the tensor) -> cotangent of the row.

    Attributes:
      needs_row: False where fitting is linear; the row may be None then, so that nobody keeps it.
      program: compiled.
    """

    needs_row: bool
    program: Callable[[jax.Array | None, jax.Array], jax.Array]


@most_recent(MOST_KINDS)
def fit_backward(ghn: GHN, kind: ParamSpec, shape: tuple[int, ...]) -> FitBackward:
    """Of one kind of tensor, fitted from decoded rows of a shape."""
    fit = functools.partial(ghn.decoder.fit, spec=kind)
    residuals = jax.eval_shape(lambda row: jax.vjp(fit, row)[1], jax.ShapeDtypeStruct(shape, jnp.float32))

    def backward(row: jax.Array | None, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(fit, jnp.zeros(shape) if row is None else row)[1](cotangent)[0]

    return FitBackward(bool(jax.tree.leaves(residuals)), jax.jit(backward))


@jax.jit
def apply_vjp(vjp: Callable, cotangent: jax.Array) -> Any:
    """A vjp as a pytree of residuals, and a cotangent -> that of the only argument."""
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
def take_row(decoded: jax.Array, row: jax.Array) -> jax.Array:
    """(B, ...) -> one of its rows. Apart from fitting, whose programs then do not depend on B."""
    return decoded[row]


@jax.jit
def zeros_like(tree: Any) -> Any:
    """A pytree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)

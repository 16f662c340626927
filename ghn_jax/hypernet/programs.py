"""The compiled programs of prediction: this is the edge at which the hypernetwork's pure functions are compiled.

A whole prediction is a chain of small programs that are reused across architectures: one for the states of a padded
batch, one for each (group of tensors, chunk size), one for each kind of tensor and number of tensors of that kind that
are cut from a chunk. All three come from small sets: the first 480 training networks at drawn widths have 286 kinds and
516 pairs of kind and number, and a meta-batch of eight needs 260 calls to fit its 1,550 tensors. Whatever else is
predicted, the least recently used are dropped beyond a fixed number.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.executables import Executables
from ghn_jax.graphs.param_spec import ParamSpec
from ghn_jax.hypernet.accumulation import add_gradient
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.protocols import DecodingKey
from ghn_jax.xla_options import ONE_OBJECT, known_options

Weights = dict[str, Any]
"""A part of the hypernetwork's weights, as `split_weights` gives them."""

Device: TypeAlias = Any
"""A jax.Device, which type checkers take for a variable."""

MOST_ENCODINGS, MOST_GROUPS, MOST_KINDS = 16, 64, 768
"""Hypernetworks, groups, and kinds with numbers of tensors whose programs are held. On CPU a program of a kind takes 3
memory mappings, in each of two chunk sizes on average, and those of a group 13 and 41 (forward and backward) in each
chunk size: at most a third of what Linux allows a process."""

SMALL = 1024
"""Tensors of at most so many numbers are fitted by programs that are not optimised."""

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
    return Executables(lambda weights, rows: ghn.decode({"params": weights}, rows, key))


@most_recent(MOST_GROUPS)
def decode_backward_program(ghn: GHN, key: DecodingKey) -> Callable[..., tuple[Weights, jax.Array]]:
    """(gradient so far, weights, rows (B, D), cotangent (B, ...) of what is decoded) -> (gradient, rows' cotangent).

    The hidden layers are computed again instead of kept: they cost a few per cent of the products that follow.
    """

    def gradient(weights: Weights, rows: jax.Array, cotangent: jax.Array) -> tuple[Weights, jax.Array]:
        return jax.vjp(lambda w, r: ghn.decode({"params": w}, r, key), weights, rows)[1](cotangent)

    def backward(total: Weights, weights: Weights, rows: jax.Array, cotangent: jax.Array) -> tuple[Weights, jax.Array]:
        return add_gradient(total, gradient, weights, rows, cotangent)

    return Executables(backward, donate=(0,))


@most_recent(MOST_KINDS)
def fit_program(ghn: GHN, kind: ParamSpec, count: int) -> Callable[[jax.Array, np.int32], list[jax.Array]]:
    """(decoded (B, ...), first row) -> tensors of one kind, cut from `count` rows."""
    fit = jax.vmap(functools.partial(ghn.decoder.fit, spec=kind))

    def fitted(decoded: jax.Array, start: np.int32) -> list[jax.Array]:
        return list(fit(jax.lax.dynamic_slice_in_dim(decoded, start, count)))

    return Executables(fitted, options=_fit_options(kind))


def _fit_options(kind: ParamSpec) -> dict[str, Any] | None:
    """Options that compile fitting fast on CPU; None elsewhere.

    XLA makes an object of each result, which takes four fifths of the time. Optimising gains nothing for small vectors,
    but kernels would be copied ten times slower without.
    """
    if jax.default_backend() != "cpu":
        return None
    unoptimised = {"xla_backend_optimization_level": 0} if kind.size <= SMALL else {}
    return known_options(**ONE_OBJECT, **unoptimised)


class FitBackward(NamedTuple):
    """Backward pass of fitting: (cotangent so far, decoded, first row, cotangents of the tensors) -> cotangent.

    The cotangent (B, ...) of what is decoded is that given, with the rows of the tensors filled in; its buffer is given
    up.

    Attributes:
      needs_decoded: False where fitting is linear; `decoded` may be None then, so that nobody keeps it.
      program: compiled.
    """

    needs_decoded: bool
    program: Callable[[jax.Array, jax.Array | None, np.int32, Sequence[jax.Array | np.ndarray]], jax.Array]


@most_recent(MOST_KINDS)
def fit_backward(ghn: GHN, kind: ParamSpec, count: int, shape: tuple[int, ...]) -> FitBackward:
    """Of `count` tensors of one kind, fitted from decoded rows of a shape."""
    fit = jax.vmap(functools.partial(ghn.decoder.fit, spec=kind))
    like = jax.ShapeDtypeStruct((count, *shape), jnp.float32)
    residuals = jax.eval_shape(lambda rows: jax.vjp(fit, rows)[1], like)

    def backward(
        total: jax.Array, decoded: jax.Array | None, start: np.int32, cotangents: Sequence[jax.Array | np.ndarray]
    ) -> jax.Array:
        rows = jnp.zeros(like.shape) if decoded is None else jax.lax.dynamic_slice_in_dim(decoded, start, count)
        (to_rows,) = jax.vjp(fit, rows)[1](jnp.stack(cotangents))
        return jax.lax.dynamic_update_slice_in_dim(total, to_rows, start, axis=0)

    return FitBackward(
        bool(jax.tree.leaves(residuals)),
        Executables(backward, donate=(0,), options=_fit_options(kind)),
    )


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


@functools.partial(jax.jit, donate_argnums=0)
def add_trees(total: Any, other: Any) -> Any:
    """The sum of two pytrees, in the buffers of the first."""
    return jax.tree.map(jnp.add, total, other)


@functools.partial(jax.jit, static_argnums=0, keep_unused=True)
def zeros(shape: tuple[int, ...], beside: jax.Array) -> jax.Array:
    """Zeros of a shape on the device of another array."""
    return jnp.zeros(shape, beside.dtype)


@jax.jit
def zeros_like(tree: Any) -> Any:
    """A pytree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)

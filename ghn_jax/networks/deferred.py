"""Cheap steps of a layer that are left to the step that reads their results.

The backward pass of the reader then keeps what goes into them and computes them again.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.platform import keeping_arguments
from ghn_jax.networks.kernels.tokens import layer_norm
from ghn_jax.networks.norms import EPSILON


class Deferred:
    """A cheap step that is left to whoever reads its result.

    The reader computes it as a part of its own work, so that its backward pass keeps what goes in and not what comes
    out, too.
    """

    def __init__(self, x: jax.Array, step: Callable[[jax.Array], jax.Array]) -> None:
        self.x = x
        self.step = step

    @functools.cached_property
    def array(self) -> jax.Array:
        """The result, for a reader that has no use for the input."""
        return keeping_arguments(self.step)(self.x)


class Relu(Deferred):
    """ReLU."""

    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, nn.relu)


class Gelu(Deferred):
    """Exact GELU."""

    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, functools.partial(nn.gelu, approximate=False))


class Strided(Deferred):
    """Every stride-th pixel of every stride-th row."""

    def __init__(self, x: jax.Array, stride: int) -> None:
        super().__init__(x, lambda x: x[:, ::stride, ::stride])


class Shifted(Deferred):
    """Without the first row and column; an odd side first gets zeros at its end."""

    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, lambda x: jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1:, 1:])


class Flat(Deferred):
    """All pixels as channels, channels first."""

    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, lambda x: jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1))


class Normalised(Deferred):
    """Layer normalisation with these weights: scale and shift (C,)."""

    def __init__(self, x: jax.Array, weights: tuple[jax.Array, jax.Array]) -> None:
        super().__init__(x, lambda x: layer_norm(x, *weights, EPSILON))
        self.weights = weights


class Unapplied(Deferred):
    """A function of arrays whose result the backward pass of its reader computes again.

    Attributes:
      function: of the arguments.
      arguments: arrays, all that is kept.
      width: channels of the result.
    """

    def __init__(self, function: Callable[..., jax.Array], arguments: Sequence[jax.Array], width: int) -> None:
        super().__init__(arguments[0], lambda x: function(x, *arguments[1:]))
        self.function, self.arguments, self.width = function, tuple(arguments), width

    @functools.cached_property
    def array(self) -> jax.Array:
        """The result, for a reader that has no more to add."""
        return keeping_arguments(self.function)(*self.arguments)

    def then(self, function: Callable[..., jax.Array], arguments: Sequence[jax.Array], width: int) -> "Unapplied":
        """`function` of the result and more arguments."""
        inner, count = self.function, len(self.arguments)
        joined = lambda *given: function(inner(*given[:count]), *given[count:])  # noqa: E731
        return Unapplied(joined, (*self.arguments, *arguments), width)


def unapplied(x: "ArrayValue") -> Unapplied:
    """X as it is, for functions to follow."""
    if isinstance(x, Unapplied):
        return x
    array = as_array(x)
    return Unapplied(lambda x: x, (array,), array.shape[-1])


ArrayValue: TypeAlias = jax.Array | Deferred
"""What steps hand on: an array, or one that its reader is left to compute."""


def as_array(x: ArrayValue) -> jax.Array:
    """The array itself."""
    return x.array if isinstance(x, Deferred) else x

"""Recipes on arrays: a layer of a target network as a small frozen Flax module.

Layers are hashable and equal to others with the same fields, so that they can key a cache of compiled programs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.deepnets.recipes import Activation, Pair, PoolKind, Recipe
from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.platform import keeping_arguments
from ghn_jax.networks.kernels.pooling import avg_pool, max_pool
from ghn_jax.networks.kernels.reductions import accumulator
from ghn_jax.networks.kernels.tokens import layer_norm
from ghn_jax.networks.norms import EPSILON, BatchNorm, LayerNormWeights
from ghn_jax.networks.parameters import Conv, FlatLinear, Linear, PositionTable


@dataclasses.dataclass(frozen=True)
class Norm:
    """Normalisation of a network; `momentum` as in `BatchNorm`."""

    momentum: float | None = None


class RecipeLayer(nn.Module):
    """The layer that a recipe describes.

    Attributes:
      recipe: what it does.
      norm: batch normalisation of the network, None without any (or if the recipe has no use for it).
    """

    recipe: Recipe
    norm: Norm | None = None

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return self.recipe.random

    @nn.compact
    def __call__(self, *xs: "_Value", train: bool = False) -> jax.Array:
        """Inputs, each (B, H, W, C), to the output; `train` matters to dropout and running statistics only."""
        return _array(self.recipe(ArrayBuilder(self.norm, train), *xs))


class DropPath(nn.Module):
    """Drops an op's output for whole images with probability `rate` in training; the others grow by 1 / (1 - rate)."""

    rate: float

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return self.rate > 0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to the same shape."""
        if not train or self.rate == 0:
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (x.shape[0], 1, 1, 1))
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros((), x.dtype))


class _Deferred:
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


class _ReLU(_Deferred):
    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, nn.relu)


class _GELU(_Deferred):
    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, functools.partial(nn.gelu, approximate=False))


class _Strided(_Deferred):
    def __init__(self, x: jax.Array, stride: int) -> None:
        super().__init__(x, lambda x: x[:, ::stride, ::stride])


class _Shifted(_Deferred):
    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, lambda x: jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1:, 1:])


class _Flat(_Deferred):
    def __init__(self, x: jax.Array) -> None:
        super().__init__(x, lambda x: jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1))


class _Normalised(_Deferred):
    def __init__(self, x: jax.Array, weights: tuple[jax.Array, jax.Array]) -> None:
        super().__init__(x, lambda x: layer_norm(x, *weights, EPSILON))
        self.weights = weights


_Value: TypeAlias = jax.Array | _Deferred


def _array(x: _Value) -> jax.Array:
    return x.array if isinstance(x, _Deferred) else x


class ArrayBuilder:
    """`Builder` on arrays; only inside a compact method, whose module gets the parameters."""

    def __init__(self, norm: Norm | None, train: bool) -> None:
        self._norm = norm
        self._train = train

    def width(self, x: _Value) -> int:
        """Channels."""
        return math.prod(x.x.shape[1:]) if isinstance(x, _Flat) else _array(x).shape[-1]

    def conv(
        self,
        x: _Value,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> _Value:
        """(B, H, W, C) to (B, H', W', width)."""
        relu, x = (True, x.x) if isinstance(x, _ReLU) else (relu, x)
        shift, x = (1, x.x) if isinstance(x, _Shifted) else (0, x)
        return Conv(width, kernel, strides, dilation, groups, relu, padding, shift, name=name)(_array(x))

    def dense(self, x: _Value, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> _Value:
        """(B, .., C) to (B, .., width); a classifier's logits are at least float32."""
        if isinstance(x, _Flat):
            out = FlatLinear(width, bias, name=name)(x.x)
        elif isinstance(x, _Normalised):
            out = Linear(width, bias, name=name)(x.x, x.weights)
        elif isinstance(x, _GELU):
            out = Linear(width, bias, gelu=True, name=name)(x.x)
        else:
            out = Linear(width, bias, name=name)(_array(x))
        return out.astype(accumulator(out.dtype)) if classifier else out

    def norm(self, x: _Value, name: str) -> _Value:
        """Batch normalisation, if the network has any."""
        return x if self._norm is None else BatchNorm(self._norm.momentum, name=name)(_array(x), train=self._train)

    def layer_norm(self, x: _Value, name: str) -> _Value:
        """Over the channels of each pixel."""
        return _Normalised(_array(x), LayerNormWeights(name=name)(self.width(x)))

    def position_table(self, x: _Value, name: str) -> _Value:
        """Added to x (B, H, W, C)."""
        return PositionTable(name=name)(_array(x))

    def activation(self, x: _Value, kind: Activation) -> _Value:
        """Elementwise; GELU is the exact one."""
        if kind == "hard_swish":
            return keeping_arguments(nn.hard_swish)(_array(x))
        return (_GELU if kind == "gelu" else _ReLU)(_array(x))

    def pool(self, x: _Value, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> _Value:
        """(B, H, W, C) to (B, H', W', C)."""
        if (window, padding) == (3, 1):
            return (max_pool if kind == "max" else avg_pool)(_array(x), stride)
        pool: Any = nn.max_pool if kind == "max" else functools.partial(nn.avg_pool, count_include_pad=False)
        sizes = ((window, window), (stride, stride), ((padding, padding), (padding, padding)))
        active, x = (nn.relu, x.x) if isinstance(x, _ReLU) else (lambda x: x, _array(x))
        # A mean without its padding comes in float32 whatever goes in.
        return keeping_arguments(lambda x: pool(active(x), *sizes).astype(x.dtype))(x)

    def mean(self, x: _Value, *, squeeze: bool = False) -> _Value:
        """(B, H, W, C) to (B, C)."""
        x = _array(x)
        return x.mean((1, 2), dtype=accumulator(x.dtype)).astype(x.dtype)

    def flatten(self, x: _Value) -> _Value:
        """(B, H, W, C) to (B, C H W): the order in which the release's classifier reads its features."""
        return _Flat(_array(x))

    def attention(self, qkv: _Value, heads: int) -> _Value:
        """(B, H, W, 3 C) to (B, H, W, C)."""
        return attend(_array(qkv), heads)

    def gate(self, x: _Value, gate: _Value) -> _Value:
        """X (B, H, W, C) times gate (B, C)."""

        def gated(x: jax.Array, gate: jax.Array) -> jax.Array:
            return step(x) * gate[:, None, None, :]

        step, x = (x.step, x.x) if isinstance(x, _Strided) else (lambda x: x, _array(x))
        return keeping_arguments(gated)(x, _array(gate))

    def stride(self, x: _Value, stride: int) -> _Value:
        """(B, H, W, C) to (B, H', W', C)."""
        return x if stride == 1 else _Strided(_array(x), stride)

    def shift(self, x: _Value) -> _Value:
        """One row and column off the beginning, one of zeros onto the end of an odd side."""
        return _Shifted(_array(x))

    def add(self, x: _Value, y: _Value) -> _Value:
        """Of equal shapes."""
        return _array(x) + _array(y)

    def concat(self, values: Sequence[_Value], zeros: Sequence[int | None] = ()) -> _Value:
        """Each (B, H, W, C) to (B, H, W, sum of C)."""

        def joined(*xs: jax.Array) -> jax.Array:
            given, area, dtype = iter(xs), xs[0].shape[:-1], xs[0].dtype
            widths = zeros or (None,) * len(xs)
            parts = [next(given) if width is None else jnp.zeros((*area, width), dtype) for width in widths]
            return jnp.concatenate(parts, axis=-1)

        return keeping_arguments(joined)(*map(_array, values))

    def zeros(self, x: _Value, width: int, stride: int) -> _Value:
        """(B, H, W, C) to zeros (B, H', W', width)."""
        strided = _array(self.stride(x, stride))
        return jnp.zeros((*strided.shape[:-1], width), strided.dtype)

    def dropout(self, x: _Value, rate: float) -> _Value:
        """Active in training."""
        return nn.Dropout(rate, deterministic=not self._train)(_array(x))

    def layer(self, name: str, recipe: Recipe, *inputs: _Value, kind: str = "", branch: bool = False) -> _Value:
        """Another layer inside this one."""
        if not name:
            return recipe(self, *inputs)
        return RecipeLayer(recipe, self._norm, name=name)(*inputs, train=self._train)

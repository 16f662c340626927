"""Recipes on arrays: a layer of a target network as a small frozen Flax module.

Layers are hashable and equal to others with the same fields, so that they can key a cache of compiled programs.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.deepnets.recipes import Activation, Pair, PoolKind, Recipe
from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.pooling import avg_pool, max_pool
from ghn_jax.networks.kernels.precision import accumulator
from ghn_jax.networks.norms import BatchNorm, LayerNorm
from ghn_jax.networks.parameters import Conv, Linear, PositionTable


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
    def __call__(self, *xs: jax.Array, train: bool = False) -> jax.Array:
        """Inputs, each (B, H, W, C), to the output; `train` matters to dropout and running statistics only."""
        return self.recipe(ArrayBuilder(self.norm, train), *xs)


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


class ArrayBuilder:
    """`Builder` on arrays; only inside a compact method, whose module gets the parameters."""

    def __init__(self, norm: Norm | None, train: bool) -> None:
        self._norm = norm
        self._train = train

    def width(self, x: jax.Array) -> int:
        """Channels."""
        return x.shape[-1]

    def conv(
        self,
        x: jax.Array,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> jax.Array:
        """(B, H, W, C) to (B, H', W', width)."""
        return Conv(width, kernel, strides, dilation, groups, relu, padding, name=name)(x)

    def dense(self, x: jax.Array, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> jax.Array:
        """(.., C) to (.., width): tokens (B, T, C) or features (B, C); a classifier's logits are at least float32."""
        if x.ndim == 3:  # tokens have a backward pass of their own
            return Linear(width, bias, name=name)(x)
        x = nn.Dense(width, use_bias=bias, dtype=x.dtype, name=name)(x)
        return x.astype(accumulator(x.dtype)) if classifier else x

    def norm(self, x: jax.Array, name: str) -> jax.Array:
        """Batch normalisation, if the network has any."""
        return x if self._norm is None else BatchNorm(self._norm.momentum, name=name)(x, train=self._train)

    def layer_norm(self, x: jax.Array, name: str) -> jax.Array:
        """Of tokens (B, T, C)."""
        return LayerNorm(name=name)(x)

    def position_table(self, x: jax.Array, name: str) -> jax.Array:
        """Added to x (B, H, W, C)."""
        return PositionTable(name=name)(x)

    def activation(self, x: jax.Array, kind: Activation) -> jax.Array:
        """Elementwise; GELU is the exact one."""
        if kind == "gelu":
            return nn.gelu(x, approximate=False)
        return nn.relu(x) if kind == "relu" else nn.hard_swish(x)

    def pool(self, x: jax.Array, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> jax.Array:
        """(B, H, W, C) to (B, H', W', C)."""
        if (window, padding) == (3, 1):
            return (max_pool if kind == "max" else avg_pool)(x, stride)
        sides: Any = ((padding, padding), (padding, padding))
        if kind == "max":
            return nn.max_pool(x, (window, window), (stride, stride), sides)
        return nn.avg_pool(x, (window, window), (stride, stride), sides, count_include_pad=False)

    def mean(self, x: jax.Array, *, squeeze: bool = False) -> jax.Array:
        """(B, H, W, C) to (B, C)."""
        return x.mean((1, 2), dtype=accumulator(x.dtype)).astype(x.dtype)

    def flatten(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) to (B, C H W): the order in which the release's classifier reads its features."""
        return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)

    def tokens(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) to (B, H W, C)."""
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def pixels(self, tokens: jax.Array, like: jax.Array) -> jax.Array:
        """(B, H W, C) to (B, H, W, C)."""
        return tokens.reshape(*like.shape[:-1], tokens.shape[-1])

    def attention(self, qkv: jax.Array, heads: int) -> jax.Array:
        """(B, T, 3 C) to (B, T, C)."""
        return attend(qkv, heads)

    def gate(self, x: jax.Array, gate: jax.Array) -> jax.Array:
        """X (B, H, W, C) times gate (B, C)."""
        return x * gate[:, None, None, :]

    def stride(self, x: jax.Array, stride: int) -> jax.Array:
        """(B, H, W, C) to (B, H', W', C)."""
        return x[:, ::stride, ::stride]

    def shift(self, x: jax.Array) -> jax.Array:
        """One row and column off the beginning, one of zeros onto the end of an odd side."""
        return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, 1:, 1:]

    def add(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Of equal shapes."""
        return x + y

    def concat(self, values: Sequence[jax.Array], zeros: Sequence[int | None] = ()) -> jax.Array:
        """Each (B, H, W, C) to (B, H, W, sum of C)."""
        given, area, dtype = iter(values), values[0].shape[:-1], values[0].dtype
        widths = zeros or (None,) * len(values)
        parts = [next(given) if width is None else jnp.zeros((*area, width), dtype) for width in widths]
        return jnp.concatenate(parts, axis=-1)

    def zeros(self, x: jax.Array, width: int, stride: int) -> jax.Array:
        """(B, H, W, C) to zeros (B, H', W', width)."""
        return jnp.zeros((*self.stride(x, stride).shape[:-1], width), x.dtype)

    def dropout(self, x: jax.Array, rate: float) -> jax.Array:
        """Active in training."""
        return nn.Dropout(rate, deterministic=not self._train)(x)

    def layer(self, name: str, recipe: Recipe, *inputs: jax.Array, kind: str = "", branch: bool = False) -> jax.Array:
        """Another layer inside this one."""
        if not name:
            return recipe(self, *inputs)
        return RecipeLayer(recipe, self._norm, name=name)(*inputs, train=self._train)

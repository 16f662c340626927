"""Recipes on arrays: a layer of a target network as a small frozen Flax module.

Layers are hashable and equal to others with the same fields, so that they can key a cache of compiled programs.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.deepnets.recipes import Activation, Pair, PoolKind, Recipe
from ghn_jax.networks.deferred import (
    ArrayValue,
    Flat,
    Gelu,
    Normalised,
    Relu,
    Shifted,
    Strided,
    Unapplied,
    as_array,
    unapplied,
)
from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.batch_norm import batch_norm
from ghn_jax.networks.kernels.platform import keeping_arguments, lean
from ghn_jax.networks.kernels.pooling import avg_pool, max_pool
from ghn_jax.networks.kernels.reductions import accumulator
from ghn_jax.networks.norms import EPSILON, BatchNorm, NormWeights
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
    def __call__(self, *xs: "ArrayValue", train: bool = False) -> jax.Array:
        """Inputs, each (B, H, W, C), to the output; `train` matters to dropout and running statistics only."""
        return as_array(self.recipe(ArrayBuilder(self.norm, train), *xs))


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


def _batch_normalised(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return batch_norm(x, scale, bias, EPSILON)[0]


RECOMPUTED_WIDTH = 64
"""Channels up to which the backward pass computes a 1 x 1 convolution again instead of keeping its result.

Each pixel of the result costs a product for each channel that goes in. On two cores, forward and backward of ReLU,
convolution and BN took 0.9 to 1.1 times as long as with what is kept for up to 64 channels, 1.17 for 96 and 128.
"""


class ArrayBuilder:
    """`Builder` on arrays; only inside a compact method, whose module gets the parameters."""

    def __init__(self, norm: Norm | None, train: bool) -> None:
        self._norm = norm
        self._train = train

    def width(self, x: ArrayValue) -> int:
        """Channels."""
        if isinstance(x, Unapplied):
            return x.width
        return math.prod(x.x.shape[1:]) if isinstance(x, Flat) else as_array(x).shape[-1]

    def conv(
        self,
        x: ArrayValue,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> ArrayValue:
        """(B, H, W, C) to (B, H', W', width)."""
        relu, x = (True, x.x) if isinstance(x, Relu) else (relu, x)
        shift, x = (1, x.x) if isinstance(x, Shifted) else (0, x)
        conv = Conv(width, kernel, strides, dilation, groups, relu, padding, shift, name=name)
        if not lean():
            return conv(as_array(x))
        x = unapplied(x)
        function, weights = conv.prepared(x.width)
        out = x.then(function, (weights,), width)
        again = kernel == (1, 1) and groups == 1 and x.width <= RECOMPUTED_WIDTH
        return out if again else out.array

    def dense(self, x: ArrayValue, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> ArrayValue:
        """(B, .., C) to (B, .., width); a classifier's logits are at least float32."""
        if isinstance(x, Flat):
            out = FlatLinear(width, bias, name=name)(x.x)
        elif isinstance(x, Normalised):
            out = Linear(width, bias, name=name)(x.x, x.weights)
        elif isinstance(x, Gelu):
            out = Linear(width, bias, gelu=True, name=name)(x.x)
        else:
            out = Linear(width, bias, name=name)(as_array(x))
        return out.astype(accumulator(out.dtype)) if classifier else out

    def norm(self, x: ArrayValue, name: str) -> ArrayValue:
        """Batch normalisation, if the network has any."""
        if self._norm is None:
            return x
        if self._norm.momentum is None and lean():
            x = unapplied(x)
            return x.then(_batch_normalised, NormWeights(name=name)(x.width), x.width)
        return BatchNorm(self._norm.momentum, name=name)(as_array(x), train=self._train)

    def layer_norm(self, x: ArrayValue, name: str) -> ArrayValue:
        """Over the channels of each pixel."""
        return Normalised(as_array(x), NormWeights(name=name)(self.width(x)))

    def position_table(self, x: ArrayValue, name: str) -> ArrayValue:
        """Added to x (B, H, W, C)."""
        return PositionTable(name=name)(as_array(x))

    def activation(self, x: ArrayValue, kind: Activation) -> ArrayValue:
        """Elementwise; GELU is the exact one."""
        if kind == "hard_swish":
            return keeping_arguments(nn.hard_swish)(as_array(x))
        return (Gelu if kind == "gelu" else Relu)(as_array(x))

    def pool(self, x: ArrayValue, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> ArrayValue:
        """(B, H, W, C) to (B, H', W', C)."""
        if (window, padding) == (3, 1):
            return (max_pool if kind == "max" else avg_pool)(as_array(x), stride)
        pool: Any = nn.max_pool if kind == "max" else functools.partial(nn.avg_pool, count_include_pad=False)
        sizes = ((window, window), (stride, stride), ((padding, padding), (padding, padding)))
        active, x = (nn.relu, x.x) if isinstance(x, Relu) else (lambda x: x, as_array(x))
        # A mean without its padding comes in float32 whatever goes in.
        return keeping_arguments(lambda x: pool(active(x), *sizes).astype(x.dtype))(x)

    def mean(self, x: ArrayValue, *, squeeze: bool = False) -> ArrayValue:
        """(B, H, W, C) to (B, C)."""
        x = as_array(x)
        return x.mean((1, 2), dtype=accumulator(x.dtype)).astype(x.dtype)

    def flatten(self, x: ArrayValue) -> ArrayValue:
        """(B, H, W, C) to (B, C H W): the order in which the release's classifier reads its features."""
        return Flat(as_array(x))

    def attention(self, qkv: ArrayValue, heads: int) -> ArrayValue:
        """(B, H, W, 3 C) to (B, H, W, C)."""
        return attend(as_array(qkv), heads)

    def gate(self, x: ArrayValue, gate: ArrayValue) -> ArrayValue:
        """X (B, H, W, C) times gate (B, C)."""

        def gated(x: jax.Array, gate: jax.Array) -> jax.Array:
            return step(x) * gate[:, None, None, :]

        step, x = (x.step, x.x) if isinstance(x, Strided) else (lambda x: x, as_array(x))
        return keeping_arguments(gated)(x, as_array(gate))

    def stride(self, x: ArrayValue, stride: int) -> ArrayValue:
        """(B, H, W, C) to (B, H', W', C)."""
        return x if stride == 1 else Strided(as_array(x), stride)

    def shift(self, x: ArrayValue) -> ArrayValue:
        """One row and column off the beginning, one of zeros onto the end of an odd side."""
        return Shifted(as_array(x))

    def add(self, x: ArrayValue, y: ArrayValue) -> ArrayValue:
        """Of equal shapes."""
        return as_array(x) + as_array(y)

    def concat(self, values: Sequence[ArrayValue], zeros: Sequence[int | None] = ()) -> ArrayValue:
        """Each (B, H, W, C) to (B, H, W, sum of C)."""

        def joined(*xs: jax.Array) -> jax.Array:
            given, area, dtype = iter(xs), xs[0].shape[:-1], xs[0].dtype
            widths = zeros or (None,) * len(xs)
            parts = [next(given) if width is None else jnp.zeros((*area, width), dtype) for width in widths]
            return jnp.concatenate(parts, axis=-1)

        return keeping_arguments(joined)(*map(as_array, values))

    def zeros(self, x: ArrayValue, width: int, stride: int) -> ArrayValue:
        """(B, H, W, C) to zeros (B, H', W', width)."""
        strided = as_array(self.stride(x, stride))
        return jnp.zeros((*strided.shape[:-1], width), strided.dtype)

    def dropout(self, x: ArrayValue, rate: float) -> ArrayValue:
        """Active in training."""
        return nn.Dropout(rate, deterministic=not self._train)(as_array(x))

    def layer(self, name: str, recipe: Recipe, *inputs: ArrayValue, kind: str = "", branch: bool = False) -> ArrayValue:
        """Another layer inside this one."""
        if not name:
            return recipe(self, *inputs)
        return RecipeLayer(recipe, self._norm, name=name)(*inputs, train=self._train)

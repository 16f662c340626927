"""First and last layers of DeepNets-1M networks: stems, classifier, auxiliary classifier."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.convolution import both, convolution
from ghn_jax.networks.kernels.platform import keeping_arguments
from ghn_jax.networks.kernels.pooling import max_pool
from ghn_jax.networks.kernels.reductions import accumulator
from ghn_jax.networks.layers import Conv, Norm, _normalise
from ghn_jax.networks.transformer import PositionTable


class TransformerStem(nn.Module):
    """Tokens from patches: convolution of kernel = stride = 16 (small images: 3 with padding 1), position table."""

    features: int
    large_image: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, 3) to (B, H', W', features)."""
        x = PatchConv(self.features, 16 if self.large_image else 3, 0 if self.large_image else 1, name="stem0")(x)
        return PositionTable(name="pos_enc")(x)


class PatchConv(nn.Module):
    """Convolution whose stride is its kernel size, without bias."""

    features: int
    size: int
    padding: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        return convolution(x, kernel, both(self.size), padding=(both(self.padding), both(self.padding)))


class SimpleStem(nn.Module):
    """Stem of type 0: one convolution (stride 4 for large images), BN, optionally max-pool of stride 2."""

    features: int
    kernel_size: int
    large_image: bool
    pool: bool
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, 3) to (B, H', W', features)."""
        stride = 4 if self.large_image else 1
        x = Conv(self.features, both(self.kernel_size), (stride, stride), name="stem_0")(x)
        x = _normalise(self.norm, "stem_1", x, train)
        return max_pool(x, 2) if self.pool else x


class DoubleStem(nn.Module):
    """First part of the stem of type 1: conv-BN-ReLU-conv-BN, C / 2 then C wide, stride 2 each for large images."""

    features: int
    kernel_size: int
    large_image: bool
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, 3) to (B, H', W', features)."""
        stride = (2, 2) if self.large_image else (1, 1)
        x = Conv(self.features // 2, both(self.kernel_size), stride, name="stem0_0")(x)
        x = _normalise(self.norm, "stem0_1", x, train)
        x = Conv(self.features, (3, 3), stride, relu=True, name="stem0_3")(x)
        return _normalise(self.norm, "stem0_4", x, train)


class SecondStem(nn.Module):
    """Second part of the stem of type 1: ReLU-conv 3-BN of stride 2."""

    features: int
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H / 2, W / 2, features)."""
        x = Conv(self.features, (3, 3), (2, 2), relu=True, name="stem1_1")(x)
        return _normalise(self.norm, "stem1_2", x, train)


class Classifier(nn.Module):
    """Global mean or flattening, then linear layers with ReLU and dropout between them."""

    num_classes: int
    hidden: tuple[int, ...] = ()
    glob_avg: bool = True
    dropout: float = 0.5

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return bool(self.hidden) and self.dropout > 0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to logits, at least float32, (B, K)."""
        if self.glob_avg:
            x = x.mean((1, 2), dtype=accumulator(x.dtype)).astype(x.dtype)
        for index, width in enumerate((*self.hidden, self.num_classes)):
            if index:
                x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
            x = FlatLinear(width, name=f"classifier_{3 * index}")(x)
        return x.astype(accumulator(x.dtype))


class FlatLinear(nn.Module):
    """Linear layer of all features of an image, of which its backward pass keeps no flattened copy."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) or (B, C) to (B, features)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (math.prod(x.shape[1:]), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            # Channels first: the order in which the release's classifier reads its features.
            return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1) @ kernel.astype(x.dtype)

        return keeping_arguments(product)(x, kernel) + bias.astype(x.dtype).reshape(1, -1)


class AuxiliaryHead(nn.Module):
    """Auxiliary classifier of ordinary training, after two thirds of the cells (DARTS, Liu et al. 2019)."""

    num_classes: int
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C), H and W at least 5, to logits, at least float32, (B, K)."""
        if min(x.shape[1:3]) < 5:
            raise ValueError(f"auxiliary head: needs features of at least 5 x 5 pixels, got {x.shape[1:3]}")
        x = keeping_arguments(lambda x: nn.avg_pool(nn.relu(x), (5, 5), (3, 3)))(x)
        x = Conv(128, (1, 1), name="features_2")(x)
        x = _normalise(self.norm, "features_3", x, train)
        shape = (2, 2, 128, 768)
        kernel = self.param("features_5", nn.initializers.he_normal(), shape)
        x = convolution(x, kernel, padding=((0, 0), (0, 0)), relu=True)
        x = nn.relu(_normalise(self.norm, "features_6", x, train))
        return FlatLinear(self.num_classes, name="classifier")(x).astype(accumulator(x.dtype))

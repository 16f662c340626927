"""DenseNet (Huang et al., 2017)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import avg_pool, batch_norm, conv, global_mean, max_pool

_GROWTH = 32
_BOTTLENECK = 4 * _GROWTH


class DenseLayer(nn.Module):
    """(B, H, W, C) -> (B, H, W, 32) new features."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """New features only."""
        x = conv(nn.relu(batch_norm(x, "norm1", train)), _BOTTLENECK, 1, "conv1")
        return conv(nn.relu(batch_norm(x, "norm2", train)), _GROWTH, 3, "conv2")


class DenseBlock(nn.Module):
    """Each layer reads the block's input and all layers before it: (B, H, W, C) -> (B, H, W, C + 32 depth).

    Attributes:
      depth: number of layers.
    """

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Concatenated features."""
        features, joined = [x], x
        for layer in range(self.depth):
            features.append(DenseLayer(name=f"denselayer{layer + 1}")(joined, train))
            # From the separate features each time, not from the last concatenation: a graph of it is one hop deep.
            joined = jnp.concatenate(features, axis=-1)
        return joined


class Transition(nn.Module):
    """Halves channels and resolution: (B, H, W, C) -> (B, H / 2, W / 2, C / 2)."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Input of the next block."""
        return avg_pool(conv(nn.relu(batch_norm(x, "norm", train)), x.shape[-1] // 2, 1, "conv"), 2, 2)


class Features(nn.Module):
    """All of the network before its classifier: images (B, H, W, 3) -> (B, H', W', C).

    Attributes:
      blocks: number of layers of each block.
      small_images: stem of 3x3, stride 1, without max-pool.
    """

    blocks: tuple[int, ...]
    small_images: bool

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Features after the last norm."""
        x = conv(images, 64, 3, "conv0") if self.small_images else conv(images, 64, 7, "conv0", stride=2)
        x = nn.relu(batch_norm(x, "norm0", train))
        if not self.small_images:
            x = max_pool(x, 3, 2, padding=1)
        for block, depth in enumerate(self.blocks, start=1):
            x = DenseBlock(depth, name=f"denseblock{block}")(x, train)
            if block < len(self.blocks):
                x = Transition(name=f"transition{block}")(x, train)
        return batch_norm(x, "norm5", train)


class DenseNet(nn.Module):
    """Densely connected network; small images: stem of 3x3, stride 1, without max-pool.

    Attributes:
      blocks: number of layers of each block.
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    blocks: tuple[int, ...]
    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics; there is no dropout to switch."""
        del dropout
        x = nn.relu(Features(self.blocks, self.small_images, name="features")(images, train))
        return nn.Dense(self.num_classes, name="classifier")(global_mean(x))


MODELS = {
    "densenet121": functools.partial(DenseNet, (6, 12, 24, 16)),
    "densenet169": functools.partial(DenseNet, (6, 12, 32, 32)),
}

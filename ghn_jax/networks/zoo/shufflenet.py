"""ShuffleNetV2 (Ma et al., 2018) of width 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import batch_norm, conv, global_mean, max_pool


class Unit(nn.Module):
    """Two branches of half the width, concatenated and shuffled; at stride 1 the first branch is half of the input.

    Attributes:
      width: output channels.
      stride: 1 or 2.
    """

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, width)."""
        half = self.width // 2
        if self.stride == 1:
            left, right = jnp.split(x, 2, axis=-1)
        else:
            left = conv(x, x.shape[-1], 3, "branch1_0", stride=self.stride, groups=x.shape[-1])
            left = conv(batch_norm(left, "branch1_1", train), half, 1, "branch1_2")
            left = nn.relu(batch_norm(left, "branch1_3", train))
            right = x
        right = nn.relu(batch_norm(conv(right, half, 1, "branch2_0"), "branch2_1", train))
        right = conv(right, half, 3, "branch2_3", stride=self.stride, groups=half)
        right = conv(batch_norm(right, "branch2_4", train), half, 1, "branch2_5")
        right = nn.relu(batch_norm(right, "branch2_6", train))
        return shuffle(jnp.concatenate([left, right], axis=-1))


def shuffle(x: jax.Array) -> jax.Array:
    """Interleaves the two halves of the channels of (B, H, W, C)."""
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return jnp.swapaxes(halves, -1, -2).reshape(x.shape)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2; small images: without the first max-pool.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics; there is no dropout to switch."""
        del dropout
        x = nn.relu(batch_norm(conv(images, 24, 3, "conv1_0", stride=2), "conv1_1", train))
        if not self.small_images:
            x = max_pool(x, 3, 2, padding=1)
        for stage, (width, count) in enumerate(((116, 4), (232, 8), (464, 4)), start=2):
            for unit in range(count):
                x = Unit(width, 2 if unit == 0 else 1, name=f"stage{stage}_{unit}")(x, train)
        x = nn.relu(batch_norm(conv(x, 1024, 1, "conv5_0"), "conv5_1", train))
        return nn.Dense(self.num_classes, name="fc")(global_mean(x))


MODELS = {"shufflenet_v2_x1_0": ShuffleNetV2}

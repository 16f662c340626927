"""GoogLeNet (Szegedy et al., 2015) with batch norms and without auxiliary heads, as torchvision has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import batch_norm, conv, drop, global_mean, max_pool


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU: (B, H, W, C) -> (B, H / stride, W / stride, width).

    Attributes:
      width: output channels.
      kernel: size of the kernel.
      stride: of the convolution.
    """

    width: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Output after the ReLU."""
        x = conv(x, self.width, self.kernel, "conv", stride=self.stride)
        return nn.relu(batch_norm(x, "bn", train, epsilon=1e-3))


class Inception(nn.Module):
    """Four branches, concatenated; the third has 3x3 kernels where the paper has 5x5, as in torchvision.

    Attributes:
      widths: 1x1; 1x1 and 3x3 of the second branch; the same of the third; 1x1 after the max-pool.
    """

    widths: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C')."""
        one, reduce3, three, reduce5, five, pool = self.widths
        second = ConvNorm(reduce3, 1, name="branch2_0")(x, train)
        third = ConvNorm(reduce5, 1, name="branch3_0")(x, train)
        branches = [
            ConvNorm(one, 1, name="branch1")(x, train),
            ConvNorm(three, 3, name="branch2_1")(second, train),
            ConvNorm(five, 3, name="branch3_1")(third, train),
            ConvNorm(pool, 1, name="branch4_1")(max_pool(x, 3, 1, padding=1), train),
        ]
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(nn.Module):
    """GoogLeNet; small images: without the first max-pool.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics."""
        x = ConvNorm(64, 7, 2, name="conv1")(images, train)
        if not self.small_images:
            x = max_pool(x, 3, 2, ceil=True)
        x = ConvNorm(64, 1, name="conv2")(x, train)
        x = max_pool(ConvNorm(192, 3, name="conv3")(x, train), 3, 2, ceil=True)
        for name, widths in _INCEPTIONS.items():
            if name == "inception4a":
                x = max_pool(x, 3, 2, ceil=True)
            elif name == "inception5a":
                x = max_pool(x, 2, 2, ceil=True)
            x = Inception(widths, name=name)(x, train)
        return nn.Dense(self.num_classes, name="fc")(drop(global_mean(x), 0.2, dropout))


# paper, Table 1
_INCEPTIONS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}

MODELS = {"googlenet": GoogLeNet}

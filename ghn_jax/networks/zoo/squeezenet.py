"""SqueezeNet 1.0 and 1.1 (Iandola et al., 2016)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import conv, drop, global_mean, max_pool


class Fire(nn.Module):
    """(B, H, W, C) -> (B, H, W, 2 expand): a 1x1 squeeze, then 1x1 and 3x3 convolutions side by side.

    Attributes:
      squeeze: channels between.
      expand: channels of each of the two.
    """

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Concatenated output of the two convolutions."""
        x = nn.relu(conv(x, self.squeeze, 1, "squeeze", bias=True))
        sides = [nn.relu(conv(x, self.expand, kernel, f"expand{kernel}x{kernel}", bias=True)) for kernel in (1, 3)]
        return jnp.concatenate(sides, axis=-1)


class SqueezeNet(nn.Module):
    """SqueezeNet, whose classifier is a convolution; the same for small images.

    Attributes:
      stem: width and kernel of the first convolution.
      pools: layer indices of the max-pools between the Fire modules.
      num_classes: K.
      small_images: accepted for every model, changes nothing here.
    """

    stem: tuple[int, int]
    pools: tuple[int, int]
    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); there is no norm for `train` to switch."""
        del train
        width, kernel = self.stem
        x = nn.relu(conv(images, width, kernel, "features_0", stride=2, padding=0, bias=True))
        x = max_pool(x, 3, 2, ceil=True)
        layer = 3
        for squeeze, expand in _FIRES:
            if layer in self.pools:
                x = max_pool(x, 3, 2, ceil=True)
                layer += 1
            x = Fire(squeeze, expand, name=f"features_{layer}")(x)
            layer += 1
        x = conv(drop(x, 0.5, dropout), self.num_classes, 1, "classifier_1", bias=True)
        return global_mean(nn.relu(x))


_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))

MODELS = {
    "squeezenet1_0": functools.partial(SqueezeNet, (96, 7), (6, 11)),
    "squeezenet1_1": functools.partial(SqueezeNet, (64, 3), (5, 8)),
}

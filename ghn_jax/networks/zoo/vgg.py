"""VGG (Simonyan and Zisserman, 2015) and AlexNet (Krizhevsky, 2014)."""

import functools

import flax.linen as nn
import jax

from ghn_jax.networks.zoo.layers import adaptive_mean, batch_norm, conv, drop, flatten_channels_first, max_pool

_SMALL_WITHOUT_POOL_BELOW = 10  # small images: max-pools before this layer index are removed


class VGG(nn.Module):
    """Stages of 3x3 convolutions, a max-pool after each, and three linear layers.

    Attributes:
      stages: number of convolutions of each of the five stages, of width 64, 128, 256, 512, 512.
      num_classes: K.
      small_images: the 32 x 32 form, without the max-pools among the first ten layers.
      norm: a batch norm after each convolution.
    """

    stages: tuple[int, ...]
    num_classes: int = 1000
    small_images: bool = False
    norm: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics."""
        x, layer = images, 0
        for stage, depth in enumerate(self.stages):
            for _ in range(depth):
                x = conv(x, min(64 * 2**stage, 512), 3, f"features_{layer}", bias=True)
                if self.norm:
                    x = batch_norm(x, f"features_{layer + 1}", train)
                x = nn.relu(x)
                layer += 3 if self.norm else 2
            if not self.small_images or layer >= _SMALL_WITHOUT_POOL_BELOW:
                x = max_pool(x, 2, 2)
            layer += 1
        x = flatten_channels_first(adaptive_mean(x, 7))
        for place in (0, 3):
            x = drop(nn.relu(nn.Dense(4096, name=f"classifier_{place}")(x)), 0.5, dropout)
        return nn.Dense(self.num_classes, name="classifier_6")(x)


class AlexNet(nn.Module):
    """AlexNet; small images: the first convolution has stride 1 and no max-pool after it.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); there is no norm for `train` to switch."""
        del train
        stride = 1 if self.small_images else 4
        x = nn.relu(conv(images, 64, 11, "features_0", stride=stride, padding=2, bias=True))
        if not self.small_images:
            x = max_pool(x, 3, 2)
        x = max_pool(nn.relu(conv(x, 192, 5, "features_3", bias=True)), 3, 2)
        for layer, width in ((6, 384), (8, 256), (10, 256)):
            x = nn.relu(conv(x, width, 3, f"features_{layer}", bias=True))
        x = flatten_channels_first(adaptive_mean(max_pool(x, 3, 2), 6))
        for place in (1, 4):
            x = nn.relu(nn.Dense(4096, name=f"classifier_{place}")(drop(x, 0.5, dropout)))
        return nn.Dense(self.num_classes, name="classifier_6")(x)


MODELS = {
    "vgg11": functools.partial(VGG, (1, 1, 2, 2, 2)),
    "vgg11_bn": functools.partial(VGG, (1, 1, 2, 2, 2), norm=True),
    "vgg16": functools.partial(VGG, (2, 2, 3, 3, 3)),
    "vgg16_bn": functools.partial(VGG, (2, 2, 3, 3, 3), norm=True),
    "alexnet": AlexNet,
}

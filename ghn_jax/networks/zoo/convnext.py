"""ConvNeXt (Liu et al., 2022), tiny."""

import functools

import flax.linen as nn
import jax

from ghn_jax.networks.zoo.layers import conv, global_mean, layer_norm

_LAYER_SCALE = 1e-6


class Block(nn.Module):
    """Depthwise 7x7, layer norm, MLP of factor 4, layer scale, residual: (B, H, W, C) -> (B, H, W, C).

    Attributes:
      drop_path: share of images whose branch is dropped, where dropout is on.
    """

    drop_path: float

    @nn.compact
    def __call__(self, x: jax.Array, dropout: bool) -> jax.Array:
        """Output of the block."""
        width = x.shape[-1]
        y = layer_norm(conv(x, width, 7, "block_0", groups=width, bias=True), "block_2")
        y = nn.gelu(nn.Dense(4 * width, name="block_3")(y), approximate=False)
        y = nn.Dense(width, name="block_5")(y)
        y = y * self.param("layer_scale", nn.initializers.constant(_LAYER_SCALE), (width,)).reshape(1, 1, 1, width)
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))(y, deterministic=not dropout)


class ConvNeXt(nn.Module):
    """ConvNeXt; small images: the first convolution has stride 1.

    Attributes:
      stages: number of blocks of each stage.
      widths: channels of each stage.
      num_classes: K.
      small_images: the 32 x 32 form.
      drop_path: rate of the last block, where dropout is on; rates grow linearly from 0.
    """

    stages: tuple[int, ...]
    widths: tuple[int, ...]
    num_classes: int = 1000
    small_images: bool = False
    drop_path: float = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); there are no batch statistics for `train` to switch."""
        del train
        stride = 1 if self.small_images else 4
        x = conv(images, self.widths[0], 4, "features_0_0", stride=stride, padding=0, bias=True)
        x = layer_norm(x, "features_0_1")
        done, last = 0, sum(self.stages) - 1
        for stage, (depth, width) in enumerate(zip(self.stages, self.widths, strict=True)):
            if stage:
                x = layer_norm(x, f"features_{2 * stage}_0")
                x = conv(x, width, 2, f"features_{2 * stage}_1", stride=2, padding=0, bias=True)
            for block in range(depth):
                rate = self.drop_path * done / last
                x = Block(rate, name=f"features_{2 * stage + 1}_{block}")(x, dropout)
                done += 1
        return nn.Dense(self.num_classes, name="classifier_2")(layer_norm(global_mean(x), "classifier_0"))


MODELS = {"convnext_tiny": functools.partial(ConvNeXt, (3, 3, 9, 3), (96, 192, 384, 768))}

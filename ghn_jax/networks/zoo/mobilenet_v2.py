"""MobileNetV2 (Sandler et al., 2018) of width 1."""

import flax.linen as nn
import jax

from ghn_jax.networks.zoo.layers import batch_norm, conv, drop, global_mean, relu6

SMALL_STRIDE_ONE_BELOW = 5
"""Small images: feature blocks of a lower index, in MobileNetV3 too, have stride 1."""


class InvertedResidual(nn.Module):
    """Inverted residual: 1x1 expansion (none at 1), depthwise 3x3, 1x1 projection.

    Attributes:
      width: output channels.
      stride: of the depthwise convolution.
      expansion: inner channels per input channel.
      residual: adds the input.
    """

    width: int
    stride: int
    expansion: int
    residual: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, width)."""
        inner = x.shape[-1] * self.expansion
        y, place = x, 0
        if self.expansion > 1:
            y = relu6(batch_norm(conv(y, inner, 1, "conv_0_0"), "conv_0_1", train))
            place = 1
        y = conv(y, inner, 3, f"conv_{place}_0", stride=self.stride, groups=inner)
        y = relu6(batch_norm(y, f"conv_{place}_1", train))
        y = batch_norm(conv(y, self.width, 1, f"conv_{place + 1}"), f"conv_{place + 2}", train)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1; small images: stride 1 in the first five feature blocks.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics."""
        x = conv(images, 32, 3, "features_0_0", stride=1 if self.small_images else 2)
        x = relu6(batch_norm(x, "features_0_1", train))
        layer = 1
        for expansion, width, count, first_stride in _STAGES:
            for block in range(count):
                stride = first_stride if block == 0 else 1
                residual = stride == 1 and x.shape[-1] == width
                if self.small_images and layer < SMALL_STRIDE_ONE_BELOW:
                    stride = 1
                x = InvertedResidual(width, stride, expansion, residual, name=f"features_{layer}")(x, train)
                layer += 1
        x = relu6(batch_norm(conv(x, 1280, 1, f"features_{layer}_0"), f"features_{layer}_1", train))
        return nn.Dense(self.num_classes, name="classifier_1")(drop(global_mean(x), 0.2, dropout))


# expansion, width, blocks, stride of the first block (paper, Table 2)
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

MODELS = {"mobilenet_v2": MobileNetV2}

"""MNASNet (Tan et al., 2019) with depth multiplier 1."""

import functools

import flax.linen as nn
import jax

from ghn_jax.networks.zoo.layers import batch_norm, conv, drop, global_mean

_norm = functools.partial(batch_norm, momentum=0.9997)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; adds the input where shapes allow it.

    Attributes:
      width: output channels.
      kernel: of the depthwise convolution.
      stride: of the depthwise convolution.
      expansion: inner channels per input channel.
    """

    width: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, width)."""
        inner = x.shape[-1] * self.expansion
        y = nn.relu(_norm(conv(x, inner, 1, "layers_0"), "layers_1", train))
        y = conv(y, inner, self.kernel, "layers_3", stride=self.stride, groups=inner)
        y = nn.relu(_norm(y, "layers_4", train))
        y = _norm(conv(y, self.width, 1, "layers_6"), "layers_7", train)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class MNASNet(nn.Module):
    """MNASNet; small images: the first convolution has stride 1.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics."""
        x = conv(images, 32, 3, "layers_0", stride=1 if self.small_images else 2)
        x = nn.relu(_norm(x, "layers_1", train))
        x = nn.relu(_norm(conv(x, 32, 3, "layers_3", groups=32), "layers_4", train))
        x = _norm(conv(x, 16, 1, "layers_6"), "layers_7", train)
        for stage, (width, kernel, first_stride, expansion, count) in enumerate(_STAGES, start=8):
            for block in range(count):
                stride = first_stride if block == 0 else 1
                x = InvertedResidual(width, kernel, stride, expansion, name=f"layers_{stage}_{block}")(x, train)
        x = nn.relu(_norm(conv(x, 1280, 1, "layers_14"), "layers_15", train))
        return nn.Dense(self.num_classes, name="classifier_1")(drop(global_mean(x), 0.2, dropout))


# width, kernel, stride of the first block, expansion, blocks
_STAGES = (
    (24, 3, 2, 3, 3),
    (40, 5, 2, 3, 3),
    (80, 5, 2, 6, 3),
    (96, 3, 1, 6, 2),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)

MODELS = {"mnasnet1_0": MNASNet}

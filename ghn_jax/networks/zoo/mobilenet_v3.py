"""MobileNetV3, small and large (Howard et al., 2019)."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import batch_norm, conv, drop, global_mean, hard_sigmoid, hard_swish
from ghn_jax.networks.zoo.mobilenet_v2 import SMALL_STRIDE_ONE_BELOW


class Bottleneck(NamedTuple):
    """One row of the tables of MobileNetV3."""

    kernel: int
    inner: int
    width: int
    squeeze: bool
    hard: bool  # hard-swish instead of ReLU
    stride: int


class SqueezeExcitation(nn.Module):
    """Gates channels by a hard sigmoid of two 1x1 convolutions of their spatial means."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        gate = jnp.mean(x, axis=(1, 2), keepdims=True)
        gate = nn.relu(conv(gate, divisible_by_8(x.shape[-1] // 4), 1, "fc1", bias=True))
        return x * hard_sigmoid(conv(gate, x.shape[-1], 1, "fc2", bias=True))


class InvertedResidual(nn.Module):
    """Inverted residual with optional squeeze-and-excitation.

    Attributes:
      row: of the paper's table.
      stride: of the depthwise convolution.
      residual: adds the input.
    """

    row: Bottleneck
    stride: int
    residual: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, width)."""
        row, y, place = self.row, x, 0
        activation = hard_swish if row.hard else nn.relu
        if row.inner != x.shape[-1]:
            y = activation(_norm(conv(y, row.inner, 1, "block_0_0"), "block_0_1", train))
            place = 1
        y = conv(y, row.inner, row.kernel, f"block_{place}_0", stride=self.stride, groups=row.inner)
        y = activation(_norm(y, f"block_{place}_1", train))
        place += 1
        if row.squeeze:
            y = SqueezeExcitation(name=f"block_{place}")(y)
            place += 1
        y = _norm(conv(y, row.width, 1, f"block_{place}_0"), f"block_{place}_1", train)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """MobileNetV3; small images: stride 1 in the first five feature blocks.

    Attributes:
      rows: its bottlenecks.
      hidden: width of the inner linear layer.
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    rows: tuple[Bottleneck, ...]
    hidden: int
    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics."""
        x = conv(images, 16, 3, "features_0_0", stride=1 if self.small_images else 2)
        x = hard_swish(_norm(x, "features_0_1", train))
        for layer, row in enumerate(self.rows, start=1):
            residual = row.stride == 1 and x.shape[-1] == row.width
            stride = 1 if self.small_images and layer < SMALL_STRIDE_ONE_BELOW else row.stride
            x = InvertedResidual(row, stride, residual, name=f"features_{layer}")(x, train)
        last = f"features_{len(self.rows) + 1}"
        x = hard_swish(_norm(conv(x, 6 * x.shape[-1], 1, f"{last}_0"), f"{last}_1", train))
        x = hard_swish(nn.Dense(self.hidden, name="classifier_0")(global_mean(x)))
        return nn.Dense(self.num_classes, name="classifier_3")(drop(x, 0.2, dropout))


def _norm(x: jax.Array, name: str, train: bool) -> jax.Array:
    """Batch norm with the constants of MobileNetV3."""
    return batch_norm(x, name, train, epsilon=1e-3, momentum=0.99)


def divisible_by_8(width: int) -> int:
    """Nearest multiple of 8, at least 8, never below 90 % of `width`."""
    rounded = max(8, (width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


_SMALL = (
    Bottleneck(3, 16, 16, True, False, 2),
    Bottleneck(3, 72, 24, False, False, 2),
    Bottleneck(3, 88, 24, False, False, 1),
    Bottleneck(5, 96, 40, True, True, 2),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 240, 40, True, True, 1),
    Bottleneck(5, 120, 48, True, True, 1),
    Bottleneck(5, 144, 48, True, True, 1),
    Bottleneck(5, 288, 96, True, True, 2),
    Bottleneck(5, 576, 96, True, True, 1),
    Bottleneck(5, 576, 96, True, True, 1),
)
_LARGE = (
    Bottleneck(3, 16, 16, False, False, 1),
    Bottleneck(3, 64, 24, False, False, 2),
    Bottleneck(3, 72, 24, False, False, 1),
    Bottleneck(5, 72, 40, True, False, 2),
    Bottleneck(5, 120, 40, True, False, 1),
    Bottleneck(5, 120, 40, True, False, 1),
    Bottleneck(3, 240, 80, False, True, 2),
    Bottleneck(3, 200, 80, False, True, 1),
    Bottleneck(3, 184, 80, False, True, 1),
    Bottleneck(3, 184, 80, False, True, 1),
    Bottleneck(3, 480, 112, True, True, 1),
    Bottleneck(3, 672, 112, True, True, 1),
    Bottleneck(5, 672, 160, True, True, 2),
    Bottleneck(5, 960, 160, True, True, 1),
    Bottleneck(5, 960, 160, True, True, 1),
)

MODELS = {
    "mobilenet_v3_small": functools.partial(MobileNetV3, _SMALL, 1024),
    "mobilenet_v3_large": functools.partial(MobileNetV3, _LARGE, 1280),
}

"""MobileNetV2 (Sandler et al., 2018) and MobileNetV3 (Howard et al., 2019)."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import (
    Activation,
    batch_norm,
    conv,
    drop,
    global_mean,
    hard_sigmoid,
    hard_swish,
    relu6,
)

_SMALL_STRIDE_ONE_BELOW = 5  # small images: the first five feature blocks have stride 1


class BlockV2(nn.Module):
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
        for expansion, width, count, first_stride in _STAGES_V2:
            for block in range(count):
                stride = first_stride if block == 0 else 1
                residual = stride == 1 and x.shape[-1] == width
                if self.small_images and layer < _SMALL_STRIDE_ONE_BELOW:
                    stride = 1
                x = BlockV2(width, stride, expansion, residual, name=f"features_{layer}")(x, train)
                layer += 1
        x = relu6(batch_norm(conv(x, 1280, 1, f"features_{layer}_0"), f"features_{layer}_1", train))
        return nn.Dense(self.num_classes, name="classifier_1")(drop(global_mean(x), 0.2, dropout))


# expansion, width, blocks, stride of the first block (paper, Table 2)
_STAGES_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


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


class BlockV3(nn.Module):
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
            y = activation(_norm_v3(conv(y, row.inner, 1, "block_0_0"), "block_0_1", train))
            place = 1
        y = conv(y, row.inner, row.kernel, f"block_{place}_0", stride=self.stride, groups=row.inner)
        y = activation(_norm_v3(y, f"block_{place}_1", train))
        place += 1
        if row.squeeze:
            y = SqueezeExcitation(name=f"block_{place}")(y)
            place += 1
        y = _norm_v3(conv(y, row.width, 1, f"block_{place}_0"), f"block_{place}_1", train)
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
        activation: Activation = hard_swish
        x = conv(images, 16, 3, "features_0_0", stride=1 if self.small_images else 2)
        x = activation(_norm_v3(x, "features_0_1", train))
        for layer, row in enumerate(self.rows, start=1):
            residual = row.stride == 1 and x.shape[-1] == row.width
            stride = 1 if self.small_images and layer < _SMALL_STRIDE_ONE_BELOW else row.stride
            x = BlockV3(row, stride, residual, name=f"features_{layer}")(x, train)
        last = f"features_{len(self.rows) + 1}"
        x = activation(_norm_v3(conv(x, 6 * x.shape[-1], 1, f"{last}_0"), f"{last}_1", train))
        x = activation(nn.Dense(self.hidden, name="classifier_0")(global_mean(x)))
        return nn.Dense(self.num_classes, name="classifier_3")(drop(x, 0.2, dropout))


def _norm_v3(x: jax.Array, name: str, train: bool) -> jax.Array:
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
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": functools.partial(MobileNetV3, _SMALL, 1024),
    "mobilenet_v3_large": functools.partial(MobileNetV3, _LARGE, 1280),
}

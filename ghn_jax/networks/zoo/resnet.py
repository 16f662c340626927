"""ResNet (He et al., 2016; stride in the 3x3 convolution), Wide ResNet and ResNeXt."""

import functools

import flax.linen as nn
import jax

from ghn_jax.networks.zoo.layers import batch_norm, conv, global_mean, max_pool


class Block(nn.Module):
    """Residual block (B, H, W, C) -> (B, H / stride, W / stride, width or 4 width).

    Attributes:
      width: channels of the stage.
      stride: of the block.
      bottleneck: 1x1, 3x3, 1x1 convolutions instead of two of 3x3.
      groups, group_width: of the 3x3 convolution of a bottleneck, whose width is width * group_width / 64 * groups.
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    groups: int = 1
    group_width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Output of the block."""
        features = self.width * (4 if self.bottleneck else 1)
        y = x
        if self.bottleneck:
            inner = self.width * self.group_width // 64 * self.groups
            y = nn.relu(batch_norm(conv(y, inner, 1, "conv1"), "bn1", train))
            y = conv(y, inner, 3, "conv2", stride=self.stride, groups=self.groups)
            y = nn.relu(batch_norm(y, "bn2", train))
            y = batch_norm(conv(y, features, 1, "conv3"), "bn3", train)
        else:
            y = nn.relu(batch_norm(conv(y, features, 3, "conv1", stride=self.stride), "bn1", train))
            y = batch_norm(conv(y, features, 3, "conv2"), "bn2", train)
        if self.stride > 1 or x.shape[-1] != features:
            x = conv(x, features, 1, "downsample_0", stride=self.stride)
            x = batch_norm(x, "downsample_1", train)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """Residual network; small images: stem of 3x3, stride 1, without max-pool.

    Attributes:
      stages: number of blocks of each of the four stages.
      num_classes: K.
      small_images: the 32 x 32 form.
      bottleneck, groups, group_width: of the blocks.
    """

    stages: tuple[int, ...]
    num_classes: int = 1000
    small_images: bool = False
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); `train`: batch statistics; there is no dropout to switch."""
        del dropout
        x = conv(images, 64, 3, "conv1") if self.small_images else conv(images, 64, 7, "conv1", stride=2)
        x = nn.relu(batch_norm(x, "bn1", train))
        if not self.small_images:
            x = max_pool(x, 3, 2, padding=1)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                width = 64 * 2**stage
                x = Block(width, stride, self.bottleneck, self.groups, self.group_width, name=name)(x, train)
        return nn.Dense(self.num_classes, name="fc")(global_mean(x))


MODELS = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), bottleneck=False),
    "resnet34": functools.partial(ResNet, (3, 4, 6, 3), bottleneck=False),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3)),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3)),
    "resnet152": functools.partial(ResNet, (3, 8, 36, 3)),
    "wide_resnet50_2": functools.partial(ResNet, (3, 4, 6, 3), group_width=128),
    "resnext50_32x4d": functools.partial(ResNet, (3, 4, 6, 3), groups=32, group_width=4),
}

"""ResNet (He et al., 2016; stride in the 3x3 convolution), Wide ResNet and ResNeXt as recipes.

The graph of ResNet-50 and the models of the zoo are both made from them; names are torchvision's.
"""

import dataclasses

from ghn_jax.deepnets.recipes import Builder, Recipe, V

RESNET50_STAGES = (3, 4, 6, 3)


@dataclasses.dataclass(frozen=True, slots=True)
class ResidualBlock(Recipe):
    """Residual block, stride times less high and wide, `width` or, as a bottleneck, 4 `width` channels.

    Attributes:
      width: channels of the stage.
      stride: of the block.
      bottleneck: 1x1, 3x3, 1x1 convolutions instead of two of 3x3.
      groups, group_width: of the 3x3 convolution of a bottleneck, whose width is width * group_width / 64 * groups.
    """

    width: int
    stride: int = 1
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Output of the block."""
        (x,) = inputs
        features = self.width * (4 if self.bottleneck else 1)
        strides = (self.stride, self.stride)
        if self.bottleneck:
            inner = self.width * self.group_width // 64 * self.groups
            y = build.activation(build.norm(build.conv(x, "conv1", inner), "bn1"), "relu")
            y = build.conv(y, "conv2", inner, (3, 3), strides=strides, groups=self.groups)
            y = build.activation(build.norm(y, "bn2"), "relu")
            y = build.norm(build.conv(y, "conv3", features), "bn3")
        else:
            y = build.norm(build.conv(x, "conv1", features, (3, 3), strides=strides), "bn1")
            y = build.norm(build.conv(build.activation(y, "relu"), "conv2", features, (3, 3)), "bn2")
        if self.stride > 1 or build.width(x) != features:
            x = build.norm(build.conv(x, "downsample_0", features, strides=strides), "downsample_1")
        return build.activation(build.add(y, x), "relu")


@dataclasses.dataclass(frozen=True, slots=True)
class ResidualNetwork(Recipe):
    """Residual network on images (B, H, W, 3); small images: stem of 3x3, stride 1, without max-pool.

    Attributes:
      stages: number of blocks of each of the four stages.
      num_classes: K.
      small_images: the 32 x 32 form.
      bottleneck, groups, group_width: of the blocks.
    """

    stages: tuple[int, ...]
    num_classes: int
    small_images: bool
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Logits (B, K)."""
        kernel, stride = ((3, 3), (1, 1)) if self.small_images else ((7, 7), (2, 2))
        x = build.conv(inputs[0], "conv1", 64, kernel, strides=stride)
        x = build.activation(build.norm(x, "bn1"), "relu")
        if not self.small_images:
            x = build.pool(x, "max", 2)
        for stage, blocks in enumerate(self.stages):
            for number in range(blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                block = ResidualBlock(64 * 2**stage, stride, self.bottleneck, self.groups, self.group_width)
                x = build.layer(f"layer{stage + 1}_{number}", block, x)
        return build.dense(build.mean(x), "fc", self.num_classes, classifier=True)

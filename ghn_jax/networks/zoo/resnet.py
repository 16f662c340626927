"""ResNet (He et al., 2016; stride in the 3x3 convolution), Wide ResNet and ResNeXt."""

import functools

import flax.linen as nn
import jax

from ghn_jax.deepnets.recipes import Pair, PoolKind, Recipe
from ghn_jax.deepnets.resnet import RESNET50_STAGES, ResidualNetwork
from ghn_jax.networks.recipe_layer import ArrayBuilder, ArrayValue, as_array
from ghn_jax.networks.zoo.layers import batch_norm, conv, global_mean, max_pool


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
        form = (self.bottleneck, self.groups, self.group_width)
        network = ResidualNetwork(self.stages, self.num_classes, self.small_images, *form)
        return as_array(network(_Builder(None, train), images))


class _Block(nn.Module):
    """A recipe whose parameters lie under a name of their own."""

    recipe: Recipe

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Output of the block."""
        return as_array(self.recipe(_Builder(None, train), x))


class _Builder(ArrayBuilder):
    """Builds with the layers of the zoo, where those of target networks differ: initialisation, running statistics."""

    def conv(
        self,
        x: ArrayValue,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> ArrayValue:
        """Square, not dilated."""
        if kernel[0] != kernel[1] or strides[0] != strides[1] or dilation > 1:
            raise ValueError(f"{name}: convolutions of the zoo are square and not dilated, got {kernel}, {strides}")
        x = nn.relu(as_array(x)) if relu else as_array(x)
        return conv(x, width, kernel[0], name, stride=strides[0], padding=padding, groups=groups)

    def dense(self, x: ArrayValue, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> ArrayValue:
        """(B, C) to (B, width)."""
        return nn.Dense(width, use_bias=bias, name=name)(as_array(x))

    def norm(self, x: ArrayValue, name: str) -> ArrayValue:
        """Batch normalisation with running statistics."""
        return batch_norm(as_array(x), name, self._train)

    def pool(self, x: ArrayValue, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> ArrayValue:
        """Maximum of windows."""
        if kind != "max":
            return super().pool(x, kind, stride, window=window, padding=padding)
        return max_pool(as_array(x), window, stride, padding)

    def mean(self, x: ArrayValue, *, squeeze: bool = False) -> ArrayValue:
        """(B, H, W, C) to (B, C)."""
        return global_mean(as_array(x))

    def layer(self, name: str, recipe: Recipe, *inputs: ArrayValue, kind: str = "", branch: bool = False) -> ArrayValue:
        """A block."""
        (x,) = inputs
        return _Block(recipe, name=name)(as_array(x), self._train)


MODELS = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), bottleneck=False),
    "resnet34": functools.partial(ResNet, (3, 4, 6, 3), bottleneck=False),
    "resnet50": functools.partial(ResNet, RESNET50_STAGES),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3)),
    "resnet152": functools.partial(ResNet, (3, 8, 36, 3)),
    "wide_resnet50_2": functools.partial(ResNet, (3, 4, 6, 3), group_width=128),
    "resnext50_32x4d": functools.partial(ResNet, (3, 4, 6, 3), groups=32, group_width=4),
}

"""Steps of target networks that hold parameters, as Flax modules; arrays are NHWC, kernels HWIO."""

import flax.linen as nn
import jax

from ghn_jax.networks.kernels.convolution import both, convolution
from ghn_jax.networks.kernels.tokens import linear

Pair = tuple[int, int]


class Conv(nn.Module):
    """Convolution without bias, after a ReLU if `relu`; padded to keep the size at stride 1 unless `padding` is set."""

    features: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: int = 1
    groups: int = 1
    relu: bool = False
    padding: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        padding = None if self.padding is None else (both(self.padding), both(self.padding))
        return convolution(
            x, kernel, self.strides, dilation=self.dilation, groups=self.groups, relu=self.relu, padding=padding
        )


class Linear(nn.Module):
    """Linear layer of each token."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, T, C) to (B, T, features)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        return linear(x, kernel, bias)


class PositionTable(nn.Module):
    """Learned position table, added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to the same shape."""
        table = self.param("table", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table.astype(x.dtype)

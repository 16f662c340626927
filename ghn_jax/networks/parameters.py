"""Steps of target networks that hold parameters, as Flax modules; arrays are NHWC, kernels HWIO."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.convolution import both, convolution
from ghn_jax.networks.kernels.platform import keeping_arguments
from ghn_jax.networks.kernels.tokens import gelu_linear, linear, norm_linear
from ghn_jax.networks.norms import EPSILON

Pair = tuple[int, int]


class Conv(nn.Module):
    """Convolution without bias, after a ReLU if `relu`; padded to keep the size at stride 1 unless `padding` is set.

    `shift` is that of `convolution`.
    """

    features: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: int = 1
    groups: int = 1
    relu: bool = False
    padding: int | None = None
    shift: int = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        convolve, kernel = self.prepared(x.shape[-1])
        return convolve(x, kernel)

    @nn.compact
    def prepared(self, width: int) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
        """The convolution, of an array of `width` channels and the kernel, and the kernel."""
        shape = (*self.kernel_size, width // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        convolve = functools.partial(
            convolution,
            strides=self.strides,
            dilation=self.dilation,
            groups=self.groups,
            relu=self.relu,
            padding=None if self.padding is None else (both(self.padding), both(self.padding)),
            shift=self.shift,
        )
        return convolve, kernel


class Linear(nn.Module):
    """Linear layer of channels, after a GELU if `gelu`."""

    features: int
    use_bias: bool = True
    gelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, norm: tuple[jax.Array, jax.Array] | None = None) -> jax.Array:
        """X (.., C), after a layer normalisation with this scale and bias if there are any, to (.., features)."""
        kernel, bias = _weights(self, x.shape[-1], self.features, self.use_bias)
        if norm is not None:
            return norm_linear(x, *norm, kernel, bias, epsilon=EPSILON)
        return (gelu_linear if self.gelu else linear)(x, kernel, bias)


class FlatLinear(nn.Module):
    """Linear layer of all features of an image, of which its backward pass keeps no flattened copy."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to (B, features)."""
        kernel, bias = _weights(self, math.prod(x.shape[1:]), self.features, self.use_bias)

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            # Channels first: the order in which the release's classifier reads its features.
            return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1) @ kernel.astype(x.dtype)

        out = keeping_arguments(product)(x, kernel)
        return out if bias is None else out + bias.astype(x.dtype).reshape(1, -1)


def _weights(module: nn.Module, into: int, features: int, use_bias: bool) -> tuple[jax.Array, jax.Array | None]:
    """Kernel (C, features) and bias (features,) of a linear layer; only inside a compact method."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), (into, features))
    return kernel, module.param("bias", nn.initializers.zeros, (features,)) if use_bias else None


class PositionTable(nn.Module):
    """Learned position table, added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to the same shape."""
        table = self.param("table", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table.astype(x.dtype)

"""Operations of DeepNets-1M networks (SPEC: target networks), as small frozen modules.

Every module is hashable and equal to another with the same fields, so that it can key a cache of compiled programs.
Arrays are NHWC, kernels HWIO. All take ``train``, which matters to dropout and to running statistics only.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.convolution import both, convolution
from ghn_jax.networks.kernels.platform import keeping_arguments
from ghn_jax.networks.kernels.pooling import avg_pool, max_pool
from ghn_jax.networks.kernels.reductions import accumulator
from ghn_jax.networks.norms import BatchNorm
from ghn_jax.networks.transformer import Linear

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Norm:
    """Normalisation of a network; `momentum` as in `BatchNorm`."""

    momentum: float | None = None


class Conv(nn.Module):
    """Convolution without bias, padded to keep the size at stride 1, after a ReLU if `relu`.

    `depthwise` gives every channel its own filter; `shift` is that of `convolution`.
    """

    features: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: int = 1
    depthwise: bool = False
    relu: bool = False
    shift: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        width = x.shape[-1]
        shape = (*self.kernel_size, 1 if self.depthwise else width, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        groups = width if self.depthwise else 1
        options = {"dilation": self.dilation, "groups": groups, "relu": self.relu, "shift": self.shift}
        return convolution(x, kernel, self.strides, **options)


def _normalise(norm: Norm | None, name: str, x: jax.Array, train: bool) -> jax.Array:
    """Batch normalisation called `name`, or nothing; only inside a compact method."""
    return x if norm is None else BatchNorm(norm.momentum, name=name)(x, train=train)


class ReLUConvBN(nn.Module):
    """ReLU, convolution, BN: ``conv_1x1 .. conv_7x7`` and the projections of a cell's inputs."""

    features: int
    kernel_size: int
    stride: int = 1
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        size, stride = both(self.kernel_size), both(self.stride)
        x = Conv(self.features, size, stride, relu=True, name="op_1")(x)
        return _normalise(self.norm, "op_2", x, train)


class FactorisedConv(nn.Module):
    """``conv_7x1_1x7``: ReLU, 1 x 7, 7 x 1, BN; each convolution strides along its long side."""

    features: int
    stride: int = 1
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        x = Conv(self.features, (1, 7), (1, self.stride), relu=True, name="op_1")(x)
        x = Conv(self.features, (7, 1), (self.stride, 1), name="op_2")(x)
        return _normalise(self.norm, "op_3", x, train)


class DilatedConv(nn.Module):
    """``dil_conv``: ReLU, depthwise of dilation 2, pointwise, BN."""

    features: int
    kernel_size: int
    stride: int = 1
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        size, stride = both(self.kernel_size), both(self.stride)
        x = Conv(x.shape[-1], size, stride, dilation=2, depthwise=True, relu=True, name="op_1")(x)
        x = Conv(self.features, (1, 1), name="op_2")(x)
        return _normalise(self.norm, "op_3", x, train)


class SeparableConv(nn.Module):
    """``sep_conv``: ReLU, depthwise, pointwise, BN, twice; the stride is in the first."""

    features: int
    kernel_size: int
    stride: int = 1
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', features)."""
        size, width = both(self.kernel_size), x.shape[-1]
        x = Conv(width, size, both(self.stride), depthwise=True, relu=True, name="op_1")(x)
        x = Conv(width, (1, 1), name="op_2")(x)
        x = _normalise(self.norm, "op_3", x, train)
        x = Conv(width, size, depthwise=True, relu=True, name="op_5")(x)
        x = Conv(self.features, (1, 1), name="op_6")(x)
        return _normalise(self.norm, "op_7", x, train)


class FactorisedReduction(nn.Module):
    """Halves height and width: ReLU, two strided 1 x 1 convolutions, the second shifted by one pixel, concat, BN."""

    features: int
    norm: Norm | None = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), features)."""
        half = self.features // 2
        first = Conv(half, (1, 1), (2, 2), relu=True, name="conv_1")(x)
        second = Conv(self.features - half, (1, 1), (2, 2), relu=True, shift=1, name="conv_2")(x)
        return _normalise(self.norm, "bn", jnp.concatenate([first, second], axis=-1), train)


class Pool(nn.Module):
    """``max_pool_3x3`` or ``avg_pool_3x3`` (padding excluded from the mean)."""

    kind: str
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', C)."""
        return (max_pool if self.kind == "max" else avg_pool)(x, self.stride)


class Stride(nn.Module):
    """Every second pixel of every second row."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), C)."""
        return x[:, ::2, ::2]


class SqueezeExcitation(nn.Module):
    """``cse``: spatial mean, linear to half the width, ReLU, linear, hard-swish, product."""

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to (B, H', W', C)."""
        width = x.shape[-1]
        gate = x.mean((1, 2), dtype=accumulator(x.dtype)).astype(x.dtype)
        gate = keeping_arguments(nn.relu)(Linear(width // 2, name="fc1")(gate))
        gate = keeping_arguments(nn.hard_swish)(Linear(width, name="fc2")(gate))
        return keeping_arguments(self._gated)(x, gate)

    def _gated(self, x: jax.Array, gate: jax.Array) -> jax.Array:
        return x[:, :: self.stride, :: self.stride] * gate[:, None, None, :]


class Add(nn.Module):
    """Sum of the two ops of a step."""

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool = False) -> jax.Array:
        """x, y (B, H, W, C) to (B, H, W, C)."""
        return x + y


class Concat(nn.Module):
    """Concatenation of a cell's steps; `widths` of steps that are zero, None where the next input stands."""

    widths: tuple[int | None, ...]

    @nn.compact
    def __call__(self, *xs: jax.Array, train: bool = False) -> jax.Array:
        """Xs each (B, H, W, C) to (B, H, W, sum of widths)."""
        return keeping_arguments(self._joined)(*xs)

    def _joined(self, *xs: jax.Array) -> jax.Array:
        inputs = iter(xs)
        area = xs[0].shape[:-1]
        parts = [next(inputs) if width is None else jnp.zeros((*area, width), xs[0].dtype) for width in self.widths]
        return jnp.concatenate(parts, axis=-1)

"""Convolutions of target networks."""

import jax
from jax import lax

Pair = tuple[int, int]


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair = (1, 1), dilation: int = 1, groups: int = 1, relu: bool = False,
    padding: tuple[Pair, Pair] | None = None,
) -> jax.Array:
    if relu:
        x = jax.nn.relu(x)
    if padding is None:
        padding = tuple((dilation * (size - 1) // 2,) * 2 for size in kernel.shape[:2])
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), strides, padding, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )

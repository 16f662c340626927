"""Building blocks that the model families share, with torchvision's conventions (NHWC images).

The functions create named flax layers in the module that calls them, because torchvision keeps a convolution and its
norm side by side (``conv1``, ``bn1``) and the parameter paths follow its names.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]

_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def identity(x: jax.Array) -> jax.Array:
    """No activation."""
    return x


def relu6(x: jax.Array) -> jax.Array:
    """ReLU cut at 6."""
    return nn.relu6(x)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6, as in MobileNetV3."""
    return nn.relu6(x + 3) / 6


def hard_swish(x: jax.Array) -> jax.Array:
    """x relu6(x + 3) / 6, as in MobileNetV3."""
    return x * hard_sigmoid(x)


def conv(
    x: jax.Array,
    features: int,
    kernel: int,
    name: str,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> jax.Array:
    """Square convolution (B, H, W, C) -> (B, H', W', features); padding on all sides, (kernel - 1) / 2 if None."""
    pad = (kernel - 1) // 2 if padding is None else padding
    layer = nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=_he_normal,
        name=name,
    )
    return layer(x)


def batch_norm(x: jax.Array, name: str, train: bool, epsilon: float = 1e-5, momentum: float = 0.9) -> jax.Array:
    """Batch statistics if `train`, else running ones; `momentum` is the share of the old running statistics.

    Variances are computed in two passes: predicted weights make activations whose mean is far above their deviation.
    """
    layer = nn.BatchNorm(
        use_running_average=not train, momentum=momentum, epsilon=epsilon, use_fast_variance=False, name=name
    )
    return layer(x)


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0, ceil: bool = False) -> jax.Array:
    """Maximum of square windows; with `ceil` a last window may hang over the lower and right edge."""

    def sides(size: int) -> tuple[int, int]:
        over = (size + 2 * padding - window) % stride
        extra = stride - over if ceil and over else 0
        # A window that would start beyond the padded input is dropped.
        if size + 2 * padding - window - over + stride >= size + padding:
            extra = 0
        return padding, padding + extra

    return nn.max_pool(x, (window, window), (stride, stride), (sides(x.shape[1]), sides(x.shape[2])))


def avg_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean of square windows, without padding."""
    return nn.avg_pool(x, (window, window), (stride, stride))


def global_mean(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, C), the mean over space."""
    return jnp.mean(x, axis=(1, 2))


def flatten_channels_first(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, C H W): torchvision's order of the features that a linear layer reads."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)

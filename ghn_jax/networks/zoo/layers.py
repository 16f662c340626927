"""Building blocks that the model families share, with torchvision's conventions (NHWC images).

The functions create named flax layers in the module that calls them, because torchvision keeps a convolution and its
norm side by side (``conv1``, ``bn1``) and the parameter paths follow its names.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

MOMENTUM = 0.9
"""Share of the old running statistics at an update, where a model does not say otherwise."""

_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def relu6(x: jax.Array) -> jax.Array:
    """ReLU cut at 6."""
    return jnp.clip(x, 0.0, 6.0)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Gate relu6(x + 3) / 6, as in MobileNetV3."""
    return relu6(x + 3.0) / 6.0


def hard_swish(x: jax.Array) -> jax.Array:
    """Product of x and `hard_sigmoid`, as in MobileNetV3."""
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


def batch_norm(x: jax.Array, name: str, train: bool, epsilon: float = 1e-5, momentum: float = MOMENTUM) -> jax.Array:
    """Batch statistics if `train`, else running ones; `momentum` is the share of the old running statistics.

    Variances are computed in two passes: predicted weights make activations whose mean is far above their deviation.
    """
    layer = nn.BatchNorm(
        use_running_average=not train, momentum=momentum, epsilon=epsilon, use_fast_variance=False, name=name
    )
    return layer(x)


def layer_norm(x: jax.Array, name: str, epsilon: float = 1e-6) -> jax.Array:
    """Normalises the channels of each position; epsilon of ConvNeXt and ViT."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)(x)


def drop(x: jax.Array, rate: float, dropout: bool) -> jax.Array:
    """Dropout, if `dropout`."""
    return nn.Dropout(rate)(x, deterministic=not dropout)


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0, ceil: bool = False) -> jax.Array:
    """Maximum of square windows; with `ceil` a last window may hang over the lower and right edge."""

    def sides(size: int) -> tuple[int, int]:
        steps = (size + 2 * padding - window) / stride
        count = math.ceil(steps) if ceil else math.floor(steps)
        if ceil and count * stride >= size + padding:  # that window would hold nothing of the input
            count -= 1
        return padding, max(padding, count * stride + window - size - padding)

    padded = (sides(x.shape[1]), sides(x.shape[2]))
    return nn.pool(x, -jnp.inf, jax.lax.max, (window, window), (stride, stride), padded)


def avg_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean of square windows, without padding."""
    return nn.avg_pool(x, (window, window), (stride, stride))


def global_mean(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, C), the mean over space."""
    return jnp.mean(x, axis=(1, 2))


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """(B, H, W, C) -> (B, size, size, C), means of windows that depend on H and W (torch's AdaptiveAvgPool2d).

    Output i averages rows floor(i H / size) to ceil((i + 1) H / size). Each axis is contracted with a constant matrix,
    so that one formulation serves sizes that divide H or not, smaller or larger.
    """
    rows, columns = _window_means(x.shape[1], size), _window_means(x.shape[2], size)
    return jnp.einsum("ph,qw,bhwc->bpqc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)


def _window_means(length: int, size: int) -> np.ndarray:
    """float32 (size, length) matrix of the means of an adaptive pooling along one axis."""
    matrix = np.zeros((size, length), np.float32)
    for place in range(size):
        first, last = place * length // size, -(-(place + 1) * length // size)
        matrix[place, first:last] = 1 / (last - first)
    return matrix


def flatten_channels_first(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, C H W): torchvision's order of the features that a linear layer reads."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)

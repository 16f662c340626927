"""Convolutions whose kernel is larger than the image, as one matrix product over all pairs of pixels.

Of a 7 x 7 kernel on 4 x 4 pixels only a third of the taps ever meets a pixel, and every pixel meets every other.
"""

import jax
import jax.numpy as jnp

LARGEST_MATRIX = 2**23
"""Weights of the unrolled kernel above which the ordinary convolution of a padded input wins."""


def applies(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether this form is the better one for x (B, H, W, C) and kernel (kh, kw, C, O), stride 1."""
    pixels = x.shape[1] * x.shape[2]
    larger = kernel.shape[0] > x.shape[1] and kernel.shape[1] > x.shape[2]
    return larger and pixels**2 * kernel.shape[2] * kernel.shape[3] <= LARGEST_MATRIX


def _offset(image: int, kernel: int) -> int:
    """Taps between the first pixel and the first output, in a kernel padded to reach all pairs."""
    return max(kernel // 2, image - 1)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """X (B, H, W, C) and kernel (kh, kw, C, O), odd sides, to (B, H, W, O)."""
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]
    down, right = _offset(height, kernel.shape[0]), _offset(width, kernel.shape[1])
    more = (down - kernel.shape[0] // 2, right - kernel.shape[1] // 2)
    kernel = jnp.pad(kernel, ((more[0],) * 2, (more[1],) * 2, (0, 0), (0, 0)))
    flat = x.reshape(batch, -1)
    pixels = [
        flat @ kernel[down - i : down - i + height, right - j : right - j + width].reshape(-1, features)
        for i in range(height)
        for j in range(width)
    ]
    return jnp.stack(pixels, 1).reshape(batch, height, width, features)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Gradient of the kernel of `convolve`, from its input and the output's cotangent."""
    batch, height, width, channels = x.shape
    features = cotangent.shape[-1]
    down, right = _offset(height, kernel.shape[0]), _offset(width, kernel.shape[1])
    pairs = x.reshape(batch, -1).T @ cotangent.reshape(batch, -1)
    pairs = pairs.reshape(height, width, channels, height, width, features)
    total = jnp.zeros((2 * down + 1, 2 * right + 1, channels, features), pairs.dtype)
    for i in range(height):
        for j in range(width):
            edges = ((down - i, down + 1 - height + i), (right - j, right + 1 - width + j))
            total = total + jnp.pad(pairs[:, :, :, i, j], (*edges, (0, 0), (0, 0)))
    top, left = down - kernel.shape[0] // 2, right - kernel.shape[1] // 2
    return total[top : top + kernel.shape[0], left : left + kernel.shape[1]]

"""Depthwise convolutions as shifted multiply-adds, which XLA fuses into one loop over the channels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.networks.kernels.reductions import accumulator, parts, sum_images

Residuals = tuple[jax.Array, jax.Array]

BACKWARD_IMAGES = 16
"""Images that the backward pass takes at a time."""

SMALLEST_CHUNK = 2**17
"""Numbers in so many images from which on this gains; less is in the cache anyway, and its reductions are slow."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, relu: bool) -> jax.Array:
    """Convolution of each channel with its own filter, padded to keep the size at stride 1.

    Args:
      x: (B, H, W, C), through a ReLU first if `relu`.
      kernel: (k, k, 1, C), k odd.
      stride: 1 or 2, in both directions.
      dilation: of the kernel.
      relu: whether x goes through a ReLU.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), C).
    """
    return _forward(x, kernel, stride, dilation, relu)[0]


def _padded(x: jax.Array, kernel: jax.Array, dilation: int, relu: bool) -> jax.Array:
    size = dilation * (kernel.shape[0] - 1) // 2
    x = jax.nn.relu(x) if relu else x
    return jnp.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))


def _window(x: jax.Array, row: int, column: int, shape: tuple[int, ...], stride: int) -> jax.Array:
    """Pixels of a padded x that one tap meets."""
    height, width = shape[1], shape[2]
    return x[:, row : row + (height - 1) * stride + 1 : stride, column : column + (width - 1) * stride + 1 : stride]


def _taps(kernel: jax.Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _forward(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, relu: bool) -> tuple[jax.Array, Residuals]:
    padded = _padded(x, kernel, dilation, relu)
    shape = (x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride))
    wide = accumulator(x.dtype)
    out = jnp.zeros((), wide)
    for i, j in _taps(kernel):
        tap = kernel[i, j].astype(wide).reshape(1, 1, 1, -1)
        out = out + _window(padded, i * dilation, j * dilation, shape, stride) * tap
    return out.astype(x.dtype), (x, kernel)


def _backward(stride: int, dilation: int, relu: bool, residuals: Residuals, cotangent: jax.Array) -> Residuals:
    x, kernel = residuals

    def of_images(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_kernel = _kernel_gradient(_padded(x, kernel, dilation, relu), kernel, cotangent, stride, dilation)
        if stride > 1:
            low, _, high = zip(*((0, 0, (size - 1) % stride) for size in x.shape[1:3]), strict=True)
            config = ((0, 0, 0), (low[0], high[0], stride - 1), (low[1], high[1], stride - 1), (0, 0, 0))
            cotangent = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), config)
        of_x = _forward(cotangent, jnp.flip(kernel, (0, 1)), 1, dilation, False)[0]
        if relu:
            of_x = jnp.where(x > 0, of_x, jnp.zeros((), of_x.dtype))
        return of_x, of_kernel

    large = cotangent.size // x.shape[0] * BACKWARD_IMAGES >= SMALLEST_CHUNK
    of_x, of_kernel = sum_images(of_images, BACKWARD_IMAGES if large else x.shape[0], x, cotangent)
    return of_x, of_kernel.astype(kernel.dtype)


def _kernel_gradient(
    padded: jax.Array, kernel: jax.Array, cotangent: jax.Array, stride: int, dilation: int
) -> jax.Array:
    """Sums over some images elementwise, see `reductions`, and leaves the rest to XLA's reduction."""
    wide = accumulator(padded.dtype)
    shape = cotangent.shape
    count = parts(shape)
    images = padded.reshape(count, -1, *padded.shape[1:])
    wanted = cotangent.reshape(count, -1, *shape[1:])
    sums = []
    for i, j in _taps(kernel):
        total = jnp.zeros((), wide)
        for index in range(count):
            window = _window(images[index], i * dilation, j * dilation, shape, stride).astype(wide)
            total = total + window * wanted[index]
        sums.append(total)
    return jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(kernel.shape)


depthwise.defvjp(_forward, _backward)

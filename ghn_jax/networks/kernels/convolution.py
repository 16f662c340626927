"""Convolutions of target networks; on CPU, with formulations chosen by shape.

XLA's CPU convolution (Eigen's) reaches the machine's matrix-product speed at stride 1, both for the result and for the
input's gradient. What it does badly is replaced here (forward and backward against XLA's own, 64 images, two cores:
`python experiments/benchmark.py kernels`, the range of four runs):

- kernel larger than the image (7 x 7 at 4 x 4 x 128: 11 to 16 times as fast): one matrix product with the kernel
  unrolled over all pairs of pixels, or, where that matrix would be large, XLA's convolution of an input that is padded
  beforehand;
- gradients of strided convolutions (5 x 5 at 8 x 8 x 128: 4 to 6): the input's by phases of the stride, the kernel's as
  matrix products by taps, a few images at a time;
- kernel gradients of 3 x 3 kernels and of images where the cotangent is large (3 x 3 from 3 to 96 channels at 32 x 32:
  8 ms of processor time instead of 29): matrix products by rows of taps, a few images at a time;
- 1 x 1 (1.2 to 2.3): a matrix product;
- kernels that are higher than wide (7 x 1: 1.1 to 1.2): the kernel's gradient is that of images on their side;
- depthwise (7 to 12): see `depthwise`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ghn_jax.networks.kernels import small_images
from ghn_jax.networks.kernels.depthwise import depthwise
from ghn_jax.networks.kernels.platform import keeping_arguments, on_cpu
from ghn_jax.networks.kernels.reductions import sum_images

Pair = tuple[int, int]
Residuals = tuple[jax.Array, jax.Array]

GRADIENT_IMAGES = 4
"""Images whose shifted copies a matrix product for the kernel's gradient takes at a time."""

LARGE_COTANGENT = 2**19
"""Numbers in a cotangent from which on XLA's gradient of a small kernel falls out of the cache."""


def both(size: int) -> Pair:
    """The same for rows and columns, or before and after."""
    return size, size


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    *,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = False,
    padding: tuple[Pair, Pair] | None = None,
    shift: int = 0,
) -> jax.Array:
    """Convolution, after a ReLU if `relu`. Its backward pass keeps x and kernel only.

    Args:
      x: (B, H, W, C).
      kernel: (kh, kw, C / groups, O), odd sides unless `padding` is given.
      strides: of rows and columns.
      dilation: of the kernel.
      groups: of channels.
      relu: whether x goes through a ReLU first.
      padding: (before, after) of rows and columns; None keeps the size at stride 1.
      shift: rows and columns at the start of x that are left out, of a 1 x 1 kernel; an odd side of x gets zeros at its
        end, so that strides of 2 take as many pixels as without a shift.

    Returns:
      (B, H', W', O) in the type of x.
    """
    if padding is None:
        rows, columns = (dilation * (size - 1) // 2 for size in kernel.shape[:2])
        padding = (both(rows), both(columns))
        if on_cpu():
            width = x.shape[-1]
            square = kernel.shape[0] == kernel.shape[1] and strides[0] == strides[1]
            if groups == width == kernel.shape[-1] and square:
                return depthwise(x, kernel, strides[0], dilation, relu)
            if groups == 1 and dilation == 1:
                return _fast(x, kernel, strides, relu, shift)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = _shifted(x, shift)
        return plain_convolution(x, kernel, strides, padding, dilation=dilation, groups=groups, relu=relu)

    return keeping_arguments(plain)(x, kernel)


def plain_convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    padding: tuple[Pair, Pair],
    *,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> jax.Array:
    """XLA's own convolution; arguments as in `convolution`."""
    return lax.conv_general_dilated(
        jax.nn.relu(x) if relu else x,
        kernel.astype(x.dtype),
        strides,
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _native(x: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """XLA's convolution, padded to keep the size at stride 1; the padding is explicit where XLA would fall back."""
    rows, columns = ((size - 1) // 2 for size in kernel.shape[:2])
    padding = ((rows, rows), (columns, columns))
    if kernel.shape[0] > x.shape[1] or kernel.shape[1] > x.shape[2]:
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
        padding = ((0, 0), (0, 0))
    return plain_convolution(x, kernel, strides, padding)


def _shifted(x: jax.Array, shift: int) -> jax.Array:
    """X (B, H, W, C) without its first `shift` rows and columns, after zeros at the end of odd sides."""
    if not shift:
        return x
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))[:, shift:, shift:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _fast(x: jax.Array, kernel: jax.Array, strides: Pair, relu: bool, shift: int) -> jax.Array:
    return _forward(x, kernel, strides, relu, shift)[0]


def _forward(x: jax.Array, kernel: jax.Array, strides: Pair, relu: bool, shift: int) -> tuple[jax.Array, Residuals]:
    residuals = x, kernel
    active, kernel = jax.nn.relu(x) if relu else x, kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        out = _pixels_times(_shifted(active, shift)[:, :: strides[0], :: strides[1]], kernel[0, 0])
    elif strides == (1, 1) and small_images.applies(x, kernel):
        out = small_images.convolve(active, kernel)
    else:
        out = _native(active, kernel, strides)
    return out, residuals


def _backward(strides: Pair, relu: bool, shift: int, residuals: Residuals, cotangent: jax.Array) -> Residuals:
    x, kernel = residuals[0], residuals[1].astype(residuals[0].dtype)
    active = jax.nn.relu(x) if relu else x
    if kernel.shape[:2] == (1, 1):
        of_x = _pixels_times(cotangent, kernel[0, 0].T)
        if strides != (1, 1) or shift:
            of_x = _spread(of_x, x.shape, strides, shift)
        of_kernel = _taps_gradient(_shifted(active, shift), cotangent, kernel, strides)
    elif strides == (1, 1) and small_images.applies(x, kernel):
        of_x = small_images.convolve(cotangent, _transposed(kernel))
        of_kernel = small_images.kernel_gradient(active, cotangent, kernel)
    elif strides == (1, 1):
        of_x = _native(cotangent, _transposed(kernel), strides)
        of_kernel = _kernel_gradient(active, cotangent, kernel)
    else:
        of_x = _strided_input_gradient(cotangent, kernel, x.shape, strides)
        of_kernel = _taps_gradient(active, cotangent, kernel, strides)
    if relu:
        of_x = jnp.where(x > 0, of_x, jnp.zeros((), of_x.dtype))
    return of_x, of_kernel.astype(residuals[1].dtype)


_fast.defvjp(_forward, _backward)


def _transposed(kernel: jax.Array) -> jax.Array:
    """Kernel of the convolution that carries cotangents back."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _kernel_gradient(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """The kernel's gradient at stride 1."""
    _, columns, width, features = kernel.shape
    if cotangent.size >= LARGE_COTANGENT and (columns == 3 or (width < 4 and features >= 32)):
        return _taps_gradient(x, cotangent, kernel, (1, 1))
    return _native_kernel_gradient(x, cotangent, kernel)


def _native_kernel_gradient(x: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """The kernel's gradient at stride 1, of images that lie on their side if the kernel is higher than wide."""
    if kernel.shape[0] > kernel.shape[1]:
        turned = (array.swapaxes(first, first + 1) for array, first in ((x, 1), (cotangent, 1), (kernel, 0)))
        return _native_kernel_gradient(*turned).swapaxes(0, 1)
    _, pull = jax.vjp(lambda kernel: _native(x, kernel, (1, 1)), kernel)
    return pull(cotangent)[0]


def _pixels_times(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """(B, H, W, C) times (C, O)."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def _spread(x: jax.Array, shape: tuple[int, ...], strides: Pair, shift: int) -> jax.Array:
    """Puts pixels back where strides took them from, zeros between; what was taken beyond the end is dropped."""
    config = [(0, 0, 0)] * 4
    for axis, stride in ((1, strides[0]), (2, strides[1])):
        config[axis] = (shift, shape[axis] - shift - (x.shape[axis] - 1) * stride - 1, stride - 1)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _taps_gradient(x: jax.Array, cotangent: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """The kernel's gradient as matrix products, one for each tap or, at stride 1, for each row of taps."""
    rows, columns, channels, features = kernel.shape
    height, width = ((size - 1) * stride + 1 for size, stride in zip(cotangent.shape[1:3], strides, strict=True))

    def of_images(x: jax.Array, cotangent: jax.Array) -> tuple[None, jax.Array]:
        padded = jnp.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
        shifted = [padded[:, :, j : j + width : strides[1]] for j in range(columns)]
        if strides == (1, 1):
            shifted = [jnp.concatenate(shifted, -1)]
        flat = cotangent.reshape(-1, features)
        taps = [
            part[:, i : i + height : strides[0]].reshape(-1, part.shape[-1]).T @ flat
            for i in range(rows)
            for part in shifted
        ]
        return None, jnp.stack(taps).reshape(rows, columns, channels, features)

    images = x.shape[0] if rows == columns == 1 else GRADIENT_IMAGES
    return sum_images(of_images, images, x, cotangent)[1].astype(kernel.dtype)


def _strided_input_gradient(
    cotangent: jax.Array, kernel: jax.Array, shape: tuple[int, ...], strides: Pair
) -> jax.Array:
    """The input's gradient: for each phase of the strides a convolution of the cotangent by the taps that meet it."""
    sides = [_phases(kernel.shape[axis], strides[axis]) for axis in (0, 1)]
    depth = [-(-shape[axis + 1] // strides[axis]) for axis in (0, 1)]
    flipped = _transposed(kernel)
    phases = []
    for first_row, row_shift, row_count in sides[0]:
        for first_column, column_shift, column_count in sides[1]:
            if not row_count * column_count:
                phases.append(jnp.zeros((shape[0], *depth, shape[3]), cotangent.dtype))
                continue
            taps = flipped[first_row :: strides[0], first_column :: strides[1]]
            padding = (
                _phase_padding(row_shift, row_count, depth[0], cotangent.shape[1]),
                _phase_padding(column_shift, column_count, depth[1], cotangent.shape[2]),
            )
            phases.append(plain_convolution(cotangent, taps, (1, 1), padding))
    whole = jnp.stack(phases).reshape(*strides, shape[0], *depth, shape[3]).transpose(2, 3, 0, 4, 1, 5)
    whole = whole.reshape(shape[0], depth[0] * strides[0], depth[1] * strides[1], shape[3])
    return whole[:, : shape[1], : shape[2]]


def _phases(size: int, stride: int) -> list[tuple[int, int, int]]:
    """For pixels stride * r + phase: the first of the flipped taps that meet them, its output r + shift, their number.

    Tap i of output o meets pixel stride * o + i - size // 2; every stride-th tap meets the same phase. A stride larger
    than the kernel leaves phases that no tap meets.
    """
    found = []
    for phase in range(stride):
        taps = [i for i in range(size) if (phase + size // 2 - i) % stride == 0]
        last = taps[-1] if taps else 0
        found.append((size - 1 - last, (phase + size // 2 - last) // stride, len(taps)))
    return found


def _phase_padding(shift: int, taps: int, depth: int, length: int) -> Pair:
    """Padding of `length` pixels such that `taps`, the first at pixel `shift`, give `depth` results."""
    return -shift, depth - 1 + taps - 1 + shift - (length - 1)

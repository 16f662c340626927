"""Formulations of every platform against the plain ones: values and gradients, float32, bfloat16 and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.networks.kernels.attention import attend, plain_attend
from ghn_jax.networks.kernels.batch_norm import batch_norm, plain_batch_norm
from ghn_jax.networks.kernels.convolution import GRADIENT_IMAGES, convolution, plain_convolution
from ghn_jax.networks.kernels.depthwise import BACKWARD_IMAGES, SMALLEST_CHUNK
from ghn_jax.networks.kernels.platform import compiling_for, on_cpu
from ghn_jax.networks.kernels.pooling import IMAGES, max_pool, plain_max_pool
from ghn_jax.networks.kernels.reductions import channel_sums, map_images, parts, sum_images
from ghn_jax.networks.kernels.tokens import gelu_linear, layer_norm, linear, norm_linear

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float64": 1e-12}
PLATFORMS = ("cpu", "cuda")
"""All others are as the second."""


def value_and_gradients(function, arrays, cotangent):
    """Result and cotangents of `function` in one compiled program."""

    def run(cotangent, *arrays):
        out, pull = jax.vjp(function, *arrays)
        return out, *pull(cotangent.astype(out.dtype))

    return jax.jit(run)(cotangent, *arrays)


def check(ours, plain, shapes, dtype="float32", round_to=None):
    """`ours`, traced for each platform, in `dtype`, equals `plain` in the wider type, for the same random arrays.

    All run on this machine: what is traced for others is XLA's own operations. For float32 also in float64, where the
    tolerance leaves no place for a wrong formula.
    """
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=shape) for shape in shapes]
    if round_to:
        draws = [np.round(draw * round_to) / round_to for draw in draws]
    for dtype_now, wide in ((dtype, "float32"), ("float64", "float64"))[: 1 + (dtype == "float32")]:
        with jax.enable_x64(dtype_now == "float64"):
            arrays = [jnp.asarray(draw, dtype_now) for draw in draws]
            exact = [array.astype(wide) for array in arrays]
            shape = jax.eval_shape(plain, *exact).shape
            cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype_now).astype(wide)
            theirs = value_and_gradients(plain, exact, cotangent)
            for platform in PLATFORMS:
                with compiling_for(platform):
                    assert on_cpu() == (platform == "cpu")
                    results = value_and_gradients(ours, arrays, cotangent)
                for one, other in zip(results, theirs, strict=True):
                    assert one.dtype == jnp.dtype(dtype_now)
                    difference = np.linalg.norm(np.asarray(one, wide) - np.asarray(other))
                    assert difference <= TOLERANCE[dtype_now] * np.linalg.norm(other), platform


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "relu"),
    [
        (5, (1, 1), (1, 1), True),
        (5, (1, 1), (2, 2), True),
        (6, (3, 3), (1, 1), False),
        (6, (3, 3), (2, 2), True),
        (5, (5, 5), (2, 2), False),
        (4, (5, 5), (1, 1), True),  # kernel larger than the image
        (4, (5, 5), (2, 2), True),
        (9, (3, 3), (4, 4), False),  # pixels that no window meets
        (7, (1, 7), (1, 2), True),
        (7, (7, 1), (2, 1), False),
        (7, (7, 1), (1, 1), True),
        (4, (1, 7), (1, 1), True),
    ],
)
def test_convolution(size, kernel, strides, relu, dtype):
    down, right = ((side - 1) // 2 for side in kernel)
    padding = ((down, down), (right, right))
    check(
        lambda x, k: convolution(x, k, strides, relu=relu),
        lambda x, k: plain_convolution(x, k, strides, padding, relu=relu),
        [(3, size, size, 4), (*kernel, 4, 6)],
        dtype,
    )


@pytest.mark.parametrize(
    ("size", "side", "stride", "channels", "features"),
    [
        (6, 3, 2, 4, 6),
        (7, 5, 2, 4, 6),
        (32, 3, 1, 3, 64),  # a large cotangent
    ],
)
def test_kernel_gradient_of_a_few_images_at_a_time(size, side, stride, channels, features):
    padding = ((side // 2, side // 2), (side // 2, side // 2))
    check(
        lambda x, k: convolution(x, k, (stride, stride), relu=True),
        lambda x, k: plain_convolution(x, k, (stride, stride), padding, relu=True),
        [(2 * GRADIENT_IMAGES, size, size, channels), (side, side, channels, features)],
    )


@pytest.mark.parametrize("size", [5, 6])
def test_shifted_convolution(size):
    """The second half of a factorised reduction: every second pixel from the second on, a zero beyond an odd side."""
    odd = (0, size % 2)
    check(
        lambda x, k: convolution(x, k, (2, 2), relu=True, shift=1),
        lambda x, k: plain_convolution(
            jnp.pad(x, ((0, 0), odd, odd, (0, 0)))[:, 1:, 1:], k, (2, 2), ((0, 0), (0, 0)), relu=True
        ),
        [(3, size, size, 4), (1, 1, 4, 6)],
    )


def test_convolution_of_a_kernel_far_larger_than_a_wide_image():
    """Too large for one matrix product over all pairs of pixels: XLA's convolution of the padded input."""
    check(
        convolution,
        lambda x, k: plain_convolution(x, k, (1, 1), ((3, 3), (3, 3))),
        [(2, 6, 6, 80), (7, 7, 80, 96)],
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"), [(7, 3, 1, 1), (7, 5, 2, 1), (6, 3, 2, 2), (4, 5, 1, 2)]
)
def test_depthwise(size, kernel, stride, dilation, dtype):
    side = dilation * (kernel - 1) // 2
    check(
        lambda x, k: convolution(x, k, (stride, stride), dilation=dilation, groups=6, relu=True),
        lambda x, k: plain_convolution(
            x, k, (stride, stride), ((side, side), (side, side)), dilation=dilation, groups=6, relu=True
        ),
        [(8, size, size, 6), (kernel, kernel, 1, 6)],
        dtype,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("size", "stride"), [(5, 1), (6, 2), (5, 2)])
def test_max_pool(size, stride, dtype):
    """Rounded inputs, so that many windows have several maxima."""
    shapes = [(3, size, size, 4)]
    check(lambda x: max_pool(x, stride), lambda x: plain_max_pool(x, stride), shapes, dtype, round_to=2)


@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_of_a_few_images_at_a_time(stride):
    shapes = [(2 * IMAGES, 5, 5, 4)]
    check(lambda x: max_pool(x, stride), lambda x: plain_max_pool(x, stride), shapes, round_to=2)


def test_max_pool_passes_nan_on():
    x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(jnp.nan)
    with compiling_for("cpu"):
        out = np.asarray(max_pool(x, 1))
    assert np.isnan(out[0, 1:4, 1:4]).all()
    assert np.isnan(out).sum() == 9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention(dtype):
    check(lambda x: attend(x, 8), lambda x: plain_attend(x, 8), [(5, 9, 96)], dtype)


def test_attention_of_an_image():
    check(lambda x: attend(x, 8), lambda x: plain_attend(x, 8), [(5, 3, 3, 96)])


def test_attention_with_large_scores():
    check(lambda x: attend(6 * x, 8), lambda x: plain_attend(6 * x, 8), [(4, 9, 96)])


@pytest.mark.parametrize("platform", [None, *PLATFORMS])
def test_bfloat16_attention_keeps_its_scores_wide(platform):
    """Scores of about 50: rounded to bfloat16 they are wrong by up to 0.1 each, and so are the weights' logarithms."""
    qkv = np.random.default_rng(0).normal(size=(4, 9, 96)) * np.repeat([5.0, 5.0, 1.0], 32)
    narrow = jnp.asarray(qkv, jnp.bfloat16)
    with compiling_for(platform):
        ours = jax.jit(lambda x: attend(x, 8))(narrow)
    query, key, value = np.moveaxis(np.asarray(narrow, np.float64).reshape(4, 9, 3, 8, 4), 2, 0)
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / 2
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    exact = np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(4, 9, 32)
    difference = np.asarray(ours, np.float64) - exact
    # Measured: 1.4e-3, from rounding weights and results; with rounded scores 9e-3.
    assert np.linalg.norm(difference) <= 3e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [6, 8])
def test_batch_norm(batch, dtype):
    check_types = [(batch, 3, 4, 5)]
    scale, bias = jnp.linspace(0.5, 2, 5), jnp.linspace(-1, 1, 5)
    check(
        lambda x: batch_norm(x, scale, bias, 1e-5)[0],
        lambda x: plain_batch_norm(x, scale, bias, 1e-5)[0],
        check_types,
        dtype,
    )


def test_batch_norm_gradients_of_scale_and_bias_and_statistics():
    shapes = [(8, 3, 4, 5), (5,), (5,)]
    check(lambda x, s, b: batch_norm(x, s, b, 1e-5)[0], lambda x, s, b: plain_batch_norm(x, s, b, 1e-5)[0], shapes)
    x = jnp.asarray(np.random.default_rng(1).normal(size=shapes[0]), jnp.float32)
    with compiling_for("cpu"):
        _, mean, var = batch_norm(x, jnp.ones(5), jnp.zeros(5), 1e-5)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)


def test_batch_norm_far_from_zero():
    """A mean of a thousand deviations: one-pass statistics must not cancel."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=(8, 4, 4, 3)), jnp.float32) + 1000
    with compiling_for("cpu"):
        var = batch_norm(x, jnp.ones(3), jnp.zeros(3), 1e-5)[2]
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 2, 3, 4), 1), ((6, 2, 3, 4), 2), ((8, 2, 3, 4), 2), ((8, 32, 32, 16), 4), ((16, 64, 64, 8), 8)],
)
def test_channel_sums(shape, count):
    assert parts(shape) == count
    x = jnp.asarray(np.random.default_rng(3).normal(size=shape), jnp.float32)
    first, second = channel_sums(x, x * x)
    np.testing.assert_allclose(first, np.asarray(x, np.float64).sum((0, 1, 2)), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(second, np.square(x, dtype=np.float64).sum((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("batch", [BACKWARD_IMAGES, 2 * BACKWARD_IMAGES])
def test_depthwise_gradient_of_many_images(batch):
    """More than two slices are added before XLA's reduction, of all images or of a part at a time."""
    assert parts((BACKWARD_IMAGES, 16, 16, 32)) == 4
    assert BACKWARD_IMAGES * 16 * 16 * 32 >= SMALLEST_CHUNK
    check(
        lambda x, k: convolution(x, k, groups=32),
        lambda x, k: plain_convolution(x, k, (1, 1), ((1, 1), (1, 1)), groups=32),
        [(batch, 16, 16, 32), (3, 3, 1, 32)],
    )


@pytest.mark.parametrize(("batch", "whole"), [(8, False), (6, False), (5, True), (4, True)])
def test_a_few_images_at_a_time(batch, whole):
    """Four or two images at a time; a batch of five would be taken one by one, and is taken as a whole."""
    x = jnp.asarray(np.random.default_rng(4).normal(size=(batch, 3)), jnp.float32)
    seen = []

    def doubled(x):
        seen.append(len(x))
        return 2 * x

    np.testing.assert_array_equal(map_images(doubled, 4, x), 2 * x)
    assert (batch in seen) == whole
    mapped, total = sum_images(lambda x, y: (doubled(x), (x * y).sum()), 4, x, x)
    np.testing.assert_array_equal(mapped, 2 * x)
    np.testing.assert_allclose(total, np.square(x).sum(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_of_tokens(dtype):
    shapes = [(3, 5, 8), (8,), (8,)]

    def normalised(x, scale, bias):
        deviation = jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / deviation * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1)

    check(lambda x, s, b: layer_norm(x, s, b, 1e-5), normalised, shapes, dtype)
    check(linear, lambda x, kernel, bias: x @ kernel + bias, [(3, 5, 8), (8, 6), (1, 1, 6)], dtype)
    check(gelu_linear, lambda x, kernel: jax.nn.gelu(x, approximate=False) @ kernel, [(3, 5, 8), (8, 6)], dtype)
    check(
        lambda x, s, b, kernel: norm_linear(x, s, b, kernel, epsilon=1e-5),
        lambda x, s, b, kernel: normalised(x, s, b) @ kernel,
        [*shapes, (8, 6)],
        dtype,
    )


def test_plain_formulations_outside_the_runner():
    """Tracers of whole networks must see one convolution for each convolution."""
    text = str(jax.make_jaxpr(convolution)(jnp.zeros((1, 5, 5, 2)), jnp.zeros((3, 3, 2, 2))))
    assert "conv_general_dilated" in text
    assert "custom_vjp" not in text

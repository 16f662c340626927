"""Pooling and reshaping of the zoo against their definitions."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_jax.networks.zoo import layers, mobilenet_v3, shufflenet


def image(seed, height, width, channels=2):
    return np.random.default_rng(seed).normal(size=(2, height, width, channels)).astype(np.float32)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8))
def test_adaptive_mean(height, width, size):
    x = image(height, height, width)
    expected = np.empty((2, size, size, 2), np.float32)
    for i in range(size):
        for j in range(size):
            rows = slice(i * height // size, -(-(i + 1) * height // size))
            columns = slice(j * width // size, -(-(j + 1) * width // size))
            expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    np.testing.assert_allclose(layers.adaptive_mean(jnp.asarray(x), size), expected, atol=1e-5)


def pooled_length(size, window, stride, padding, ceil):
    """Torch's rule: in ceil mode the last window must start inside the input or its left padding."""
    span = size + 2 * padding - window
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    return count


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 14), st.sampled_from([(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (1, 3, 0)]), st.booleans())
def test_max_pool(size, geometry, ceil):
    window, stride, padding = geometry
    x = image(size, size, size + 1)
    counts = [pooled_length(length, window, stride, padding, ceil) for length in (size, size + 1)]
    expected = np.empty((2, *counts, 2), np.float32)
    for i in range(counts[0]):
        for j in range(counts[1]):
            rows = slice(max(i * stride - padding, 0), i * stride - padding + window)
            columns = slice(max(j * stride - padding, 0), j * stride - padding + window)
            expected[:, i, j] = x[:, rows, columns].max(axis=(1, 2))
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x), window, stride, padding, ceil), expected)


def test_flattening_is_channels_first():
    x = image(0, 3, 4)
    expected = np.moveaxis(x, -1, 1).reshape(2, -1)
    np.testing.assert_array_equal(layers.flatten_channels_first(jnp.asarray(x)), expected)


def test_hard_activations():
    x = jnp.array([-4.0, -3.0, 0.0, 1.5, 3.0, 8.0])
    np.testing.assert_allclose(layers.relu6(x), [0, 0, 0, 1.5, 3, 6])
    np.testing.assert_allclose(layers.hard_sigmoid(x), [0, 0, 0.5, 0.75, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(layers.hard_swish(x), [0, 0, 0, 1.125, 3, 8], rtol=1e-6)


def test_shuffle_interleaves_the_halves():
    x = jnp.arange(6.0).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(shufflenet.shuffle(x)[0, 0, 0], [0, 3, 1, 4, 2, 5])
    twice = functools.reduce(lambda y, _: shufflenet.shuffle(y), range(4), x)
    np.testing.assert_array_equal(twice, x)


@pytest.mark.parametrize(("width", "expected"), [(4, 8), (16, 16), (18, 24), (22, 24), (24, 24), (60, 64), (10, 16)])
def test_squeeze_widths(width, expected):
    assert mobilenet_v3.divisible_by_8(width) == expected

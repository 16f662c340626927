"""From a decoded row to a network's tensor, by the rules of GHN-2: cut, tile, normalise, lay out (paper, section 3.3).

Functions for decoders to share; one that fits otherwise brings its own.
"""

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import CanonicalShape, ParamSpec, Role

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig

SlabShape = tuple[int, int, int, int]
"""(kh, kw, in, out) of a slab."""

FIRST_TOKEN_DEVIATION = 0.02
"""Standard deviation of the random token of GHN-3's position tables."""

LARGE_TABLE = 11
"""Position tables of at least this height and width are not normalised."""


def is_token_table(spec: ParamSpec) -> bool:
    """Whether it is a position table over a sequence, (1, n, C): a square of floor(sqrt(n)), row by row."""
    return spec.role is Role.POSITION and spec.rank == 3


def decoded_shape(spec: ParamSpec) -> CanonicalShape:
    """(out, in, kh, kw) that is asked of the decoder."""
    out_size, in_size, height, width = spec.canonical_shape
    if is_token_table(spec):
        height = width = math.isqrt(height * width)
    return out_size, in_size, height, width


def grouped_size(size: int, largest: int) -> int:
    """Size of a slab axis: few distinct values, so that tensors of similar shapes are decoded together."""
    grouped = min(size, largest)
    if grouped % 3 == 0:
        grouped = 4 * grouped // 3
    return largest if grouped >= largest / 2 else grouped


def slab_shape(config: "GHNConfig", spec: ParamSpec) -> SlabShape:
    """(kh, kw, in, out) of the slab that a kernel or table is cut from."""
    out_size, in_size, height, width = decoded_shape(spec)
    rows, columns = config.max_shape[:2]
    return height, width, grouped_size(in_size, columns), grouped_size(out_size, rows)


def normalisation_factor(config: "GHNConfig", spec: ParamSpec) -> float:
    """Factor of a kernel or table: sqrt(beta / fan), 1 where nothing is normalised."""
    out_size, in_size, height, width = spec.canonical_shape
    if config.normalization == "none" or (
        spec.role is Role.POSITION and out_size == 1 and decoded_shape(spec)[2] >= LARGE_TABLE
    ):
        return 1.0
    beta = 1 if spec.rank > 2 and (in_size == 1 or height < width) else 2
    fan = (in_size if config.normalization == "fan_in" else out_size) * height * width
    return math.sqrt(beta / fan)


def tile(array: jax.Array, axis: int, period: int, size: int) -> jax.Array:
    """Cuts an axis to its first `period` entries and repeats them up to `size`."""
    period = min(period, size)
    array = jax.lax.slice_in_dim(array, 0, period, axis=axis)
    repeats = -(-size // period)
    if repeats > 1:
        array = jnp.tile(array, [repeats if place == axis else 1 for place in range(array.ndim)])
    return jax.lax.slice_in_dim(array, 0, size, axis=axis)


def fit_kernel(config: "GHNConfig", row: jax.Array, spec: ParamSpec) -> jax.Array:
    """Slab (kh, kw, in, out), of at most (S, S) pixels -> kernel or table. Linear in the slab."""
    out_size, in_size, height, width = decoded_shape(spec)
    row = tile(tile(row, 0, row.shape[0], height), 1, row.shape[1], width)
    if is_token_table(spec):
        tokens = math.prod(spec.canonical_shape[2:])
        row = tile(row.reshape(-1, 1, *row.shape[2:]), 0, height * width, tokens)
    row = tile(row, 2, config.max_shape[1], in_size)
    # The classifier's slab has all its classes; those of other tensors repeat after the largest decoded size.
    row = row if spec.role is Role.CLASSIFIER_KERNEL else tile(row, 3, config.max_shape[0], out_size)
    return lay_out(normalised(config, row, spec), spec)


def normalised(config: "GHNConfig", row: jax.Array, spec: ParamSpec) -> jax.Array:
    """Slab times its factor."""
    factor = normalisation_factor(config, spec)
    return row if factor == 1.0 else row * factor


def fit_token_table(row: jax.Array, spec: ParamSpec, seed: int) -> jax.Array:
    """Slab (k, k, C, any) -> position table (1, n, C) by the rule of GHN-3, which does not normalise it.

    The first token is random, the others are the pixels of the slab's first out-row, row by row.

    Raises:
      ValueError: for more than k^2 + 1 tokens.
    """
    pixels = row[..., 0].reshape(-1, row.shape[2])
    tokens = math.prod(spec.canonical_shape[2:])
    if tokens > len(pixels) + 1:
        raise ValueError(
            f"the position table of shape {spec.shape} has {tokens} tokens, but a square of {row.shape[0]} x "
            f"{row.shape[1]} and one more are predicted"
        )
    first = FIRST_TOKEN_DEVIATION * jax.random.normal(jax.random.key(seed), (1, row.shape[2]), row.dtype)
    return lay_out(jnp.concatenate([first, pixels])[:tokens].reshape(tokens, 1, -1, 1), spec)


def lay_out(array: jax.Array, spec: ParamSpec) -> jax.Array:
    """(kh, kw, in, out) -> the spec's axes and shape."""
    letters = "HWIO"
    split = sorted(range(len(spec.axes)), key=lambda place: letters.index(spec.axes[place]))
    parts = array.reshape([spec.shape[place] for place in split])
    return parts.transpose([split.index(place) for place in range(len(split))])


def fit_vector(config: "GHNConfig", values: jax.Array, spec: ParamSpec) -> jax.Array:
    """Decoded (n,) -> norm weight or bias of any size."""
    values = tile(values, 0, len(values), spec.size)
    if config.normalization != "none":
        values = 2 * jax.nn.sigmoid(values / 2) if spec.role is Role.SCALE else jnp.tanh(values / 5)
    return values.reshape(spec.shape)

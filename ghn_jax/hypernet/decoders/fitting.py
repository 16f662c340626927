"""From a decoded row to a network's tensor: cut, tile, normalise, lay out (SPEC: fitting and normalisation)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import CanonicalShape, ParamSpec, Role
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.decoders.slabs import SlabShape

LARGE_TABLE = 11
"""Position tables of at least this height and width are not normalised."""


class TensorKind(NamedTuple):
    """What fitting depends on: role and layout of a tensor, as in `ParamSpec`."""

    role: Role
    shape: tuple[int, ...]
    axes: str

    @classmethod
    def of(cls, spec: ParamSpec) -> "TensorKind":
        """Kind of a spec."""
        return cls(spec.role, spec.shape, spec.axes)

    def spec(self) -> ParamSpec:
        """A spec of this kind, for its derived properties."""
        return ParamSpec((), self.shape, self.axes, self.role, 0)

    @property
    def is_token_table(self) -> bool:
        """A position table over a sequence, (1, n, C): decoded as a square of floor(sqrt(n)), row by row."""
        return self.role is Role.POSITION and not {"H", "W"} <= set(self.axes)


def decoded_shape(kind: TensorKind) -> CanonicalShape:
    """(out, in, kh, kw) that is asked of the decoder."""
    out_size, in_size, height, width = kind.spec().canonical_shape
    if kind.is_token_table:
        height = width = math.isqrt(height * width)
    return out_size, in_size, height, width


def _grouped_size(size: int, largest: int) -> int:
    """Size of a slab axis: few distinct values, so that tensors of similar shapes are decoded together."""
    grouped = min(size, largest)
    if grouped % 3 == 0:
        grouped = 4 * grouped // 3
    return largest if grouped >= largest / 2 else grouped


def slab_shape(config: GHNConfig, kind: TensorKind) -> SlabShape:
    """Grouping key: (kh, kw, in, out) of the slab that a kernel or table is cut from."""
    out_size, in_size, height, width = decoded_shape(kind)
    rows, columns = config.max_shape[:2]
    return height, width, _grouped_size(in_size, columns), _grouped_size(out_size, rows)


def normalisation_factor(config: GHNConfig, kind: TensorKind) -> float:
    """Factor of a kernel or table: sqrt(beta / fan), 1 where nothing is normalised."""
    out_size, in_size, height, width = kind.spec().canonical_shape
    if config.normalization == "none" or (
        kind.role is Role.POSITION and out_size == 1 and decoded_shape(kind)[2] >= LARGE_TABLE
    ):
        return 1.0
    beta = 1 if kind.spec().rank > 2 and (in_size == 1 or height < width) else 2
    fan = (in_size if config.normalization == "fan_in" else out_size) * height * width
    return math.sqrt(beta / fan)


def _tile(array: jax.Array, axis: int, period: int, size: int) -> jax.Array:
    """Cuts an axis to its first `period` entries and repeats them up to `size`."""
    period = min(period, size)
    array = jax.lax.slice_in_dim(array, 0, period, axis=axis)
    repeats = -(-size // period)
    if repeats > 1:
        array = jnp.tile(array, [repeats if place == axis else 1 for place in range(array.ndim)])
    return jax.lax.slice_in_dim(array, 0, size, axis=axis)


def fit_kernel(config: GHNConfig, kind: TensorKind, row: jax.Array) -> jax.Array:
    """Slab (kh, kw, in, out) -> tensor of the kind's shape. Linear in the slab."""
    out_size, in_size, height, width = kind.spec().canonical_shape
    if kind.is_token_table:
        row = _tile(row.reshape(-1, 1, *row.shape[2:]), 0, row.shape[0] * row.shape[1], height * width)
    row = _tile(row, 2, config.max_shape[1], in_size)
    # The classifier's slab has all its classes; those of other tensors repeat after the largest decoded size.
    row = row if kind.role is Role.CLASSIFIER_KERNEL else _tile(row, 3, config.max_shape[0], out_size)
    factor = normalisation_factor(config, kind)
    return lay_out(row if factor == 1.0 else row * factor, kind)


def lay_out(array: jax.Array, kind: TensorKind) -> jax.Array:
    """(kh, kw, in, out) -> the kind's axes and shape."""
    letters = "HWIO"
    split = sorted(range(len(kind.axes)), key=lambda place: letters.index(kind.axes[place]))
    parts = array.reshape([kind.shape[place] for place in split])
    return parts.transpose([split.index(place) for place in range(len(split))])


def fit_vector(config: GHNConfig, kind: TensorKind, values: jax.Array) -> jax.Array:
    """Decoded (n,), of the row that the role asks for -> vector of the kind's shape."""
    values = _tile(values, 0, len(values), kind.spec().size)
    if config.normalization != "none":
        values = 2 * jax.nn.sigmoid(values / 2) if kind.role is Role.SCALE else jnp.tanh(values / 5)
    return values.reshape(kind.shape)

"""Initial node states: primitive and tensor shape (SPEC: node features)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.config import GHNConfig


@functools.cache
def channel_sizes(num_classes: int) -> tuple[int, ...]:
    """Listed channel counts, ascending."""
    listed = {1, 3, num_classes, *range(8, 64, 8), *range(64, 4096, 16), *range(4096, 8193, 32)}
    return tuple(sorted(listed))


@functools.cache
def spatial_sizes(largest: int) -> tuple[int, ...]:
    """Listed kernel sizes, ascending, for `max_shape[3] = largest`."""
    return tuple(sorted({*range(1, max(12, largest), 2), 14, 16}))


def _nearest(listed: tuple[int, ...], exceptions: dict[int, int]) -> np.ndarray:
    """int32 table: place of the listed value that each size up to the largest counts as.

    Size 0 means no shape and maps to the extra last row; a tie goes to the lower value.
    """
    values = np.array(listed)
    sizes = np.arange(values[-1] + 1)
    table = np.abs(sizes[:, None] - values[None, :]).argmin(axis=1).astype(np.int32)
    for size, counts_as in exceptions.items():
        if size not in listed:
            table[size] = listed.index(counts_as)
    table[0] = len(listed)
    return table


@functools.cache
def channel_table(num_classes: int) -> np.ndarray:
    """Row of the channel embedding for every channel count; larger counts are as the last."""
    return _nearest(channel_sizes(num_classes), {4: 8, 5: 8, 6: 8, 7: 8})


@functools.cache
def spatial_table(largest: int) -> np.ndarray:
    """Row of the spatial embedding for every kernel size; larger sizes are as the last."""
    return _nearest(spatial_sizes(largest), {2: 3})


class ShapeEncoder(nn.Module):
    """Four embeddings of a quarter of the width each: channels out and in, kernel height and width."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        config = self.config
        normal = nn.initializers.normal(1.0)
        quarter = config.hid // 4
        self.embed_channel = self.param("embed_channel", normal, (len(channel_sizes(config.num_classes)) + 1, quarter))
        self.embed_spatial = self.param("embed_spatial", normal, (len(spatial_sizes(config.max_shape[3])) + 1, quarter))

    def __call__(self, shapes: jax.Array) -> jax.Array:
        """Int (..., 4) shapes (out, in, height, width), zeros for none -> (..., D)."""
        config = self.config
        channel = jnp.asarray(channel_table(config.num_classes))
        spatial = jnp.asarray(spatial_table(config.max_shape[3]))
        channels = channel[jnp.clip(shapes[..., :2], 0, len(channel) - 1)]
        kernel = spatial[jnp.clip(shapes[..., 2:], 0, len(spatial) - 1)]
        parts = jnp.concatenate([self.embed_channel[channels], self.embed_spatial[kernel]], axis=-2)
        return parts.reshape(*shapes.shape[:-1], config.hid)


class NodeEncoder(nn.Module):
    """Embedding of the primitive plus that of the shape."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        config = self.config
        self.embed = self.param("embed", nn.initializers.normal(1.0), (len(Primitive), config.hid))
        if config.shape_encoding:
            self.shape_enc = ShapeEncoder(config)

    def __call__(self, types: jax.Array, shapes: jax.Array) -> jax.Array:
        """Int (...) primitives and int (..., 4) shapes -> (..., D)."""
        states = self.embed[types]
        return states + self.shape_enc(shapes) if self.config.shape_encoding else states

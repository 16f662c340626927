"""Initial node states: embeddings of primitive and tensor shape (paper, section 3.1; baseline of section 2.2)."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from ghn_jax.graphs.batching import GraphBatch
from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, plain

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


Initialisation = Callable[[int], Initializer]
"""How a table of embeddings of some width is drawn."""


def unit_normal(_: int) -> Initializer:
    """PyTorch's default for embeddings, whatever their width."""
    return nn.initializers.normal(1.0)


@functools.cache
def channel_sizes(num_classes: int, more: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Listed channel counts, ascending; `more` are listed besides the usual ones."""
    listed = {1, 3, num_classes, *range(8, 64, 8), *range(64, 4096, 16), *range(4096, 8193, 32), *more}
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
    above = np.searchsorted(values, sizes)
    below = np.maximum(above - 1, 0)
    table = np.where(values[above] - sizes < np.abs(sizes - values[below]), above, below).astype(np.int32)
    for size, counts_as in exceptions.items():
        if size not in listed:
            table[size] = listed.index(counts_as)
    table[0] = len(listed)
    return table


@functools.cache
def channel_table(num_classes: int, more: tuple[int, ...] = ()) -> np.ndarray:
    """Row of the channel embedding for every channel count; larger counts are as the last."""
    return _nearest(channel_sizes(num_classes, more), {4: 8, 5: 8, 6: 8, 7: 8})


@functools.cache
def spatial_table(largest: int) -> np.ndarray:
    """Row of the spatial embedding for every kernel size; larger sizes are as the last."""
    return _nearest(spatial_sizes(largest), {2: 3})


class ShapeEmbedding(nn.Module):
    """Four embeddings of a quarter of the width each: channels out and in, kernel height and width.

    Attributes:
      hid: D.
      num_classes: K, listed among the channel counts.
      largest: largest kernel that is decoded.
      more_channels: further listed channel counts.
      initialisation: of the tables.
    """

    hid: int
    num_classes: int
    largest: int
    more_channels: tuple[int, ...] = ()
    initialisation: Initialisation = unit_normal

    def setup(self) -> None:
        """Creates the tables."""
        quarter = self.hid // 4
        init = self.initialisation(quarter)
        channels, kernels = channel_sizes(self.num_classes, self.more_channels), spatial_sizes(self.largest)
        self.embed_channel = self.param("embed_channel", init, (len(channels) + 1, quarter))
        self.embed_spatial = self.param("embed_spatial", init, (len(kernels) + 1, quarter))

    def __call__(self, shapes: jax.Array) -> jax.Array:
        """Int (..., 4) shapes (out, in, height, width), zeros for none -> (..., D)."""
        channel = jnp.asarray(channel_table(self.num_classes, self.more_channels))
        spatial = jnp.asarray(spatial_table(self.largest))
        channels = channel[jnp.clip(shapes[..., :2], 0, len(channel) - 1)]
        kernel = spatial[jnp.clip(shapes[..., 2:], 0, len(spatial) - 1)]
        parts = jnp.concatenate([self.embed_channel[channels], self.embed_spatial[kernel]], axis=-2)
        return parts.reshape(*shapes.shape[:-1], self.hid)


class NodeFeatures(nn.Module):
    """Embedding of the primitive plus that of the shape.

    Attributes:
      config: of the hypernetwork.
      shape_encoding: False for the ablation without shapes.
      more_primitives: rows of the table of primitives after those of the vocabulary.
      more_channels: channel counts listed besides the usual ones.
      initialisation: of the tables.
    """

    config: "GHNConfig"
    shape_encoding: bool = True
    more_primitives: int = 0
    more_channels: tuple[int, ...] = ()
    initialisation: Initialisation = unit_normal

    def setup(self) -> None:
        """Creates the tables."""
        config = self.config
        rows = len(Primitive) + self.more_primitives
        self.embed = self.param("embed", self.initialisation(config.hid), (rows, config.hid))
        if self.shape_encoding:
            self.shape_enc = ShapeEmbedding(
                config.hid, config.num_classes, config.max_shape[3], self.more_channels, self.initialisation
            )

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """Graphs -> (G, N, D)."""
        states = self.embed[jnp.asarray(batch.node_types)]
        return states + self.shape_enc(jnp.asarray(batch.node_shapes)) if self.shape_encoding else states


def release_tensors(
    config: "GHNConfig",
    layernorm: bool,
    shape_encoding: bool,
    more_primitives: int = 0,
    more_channels: tuple[int, ...] = (),
) -> list[ReleaseTensor]:
    """Tensors of the release that stand before those of the encoder proper: final LayerNorm and embeddings."""
    hid = config.hid
    tensors = []
    if layernorm:
        tensors += [plain("ln.weight", ("ln", "scale"), hid), plain("ln.bias", ("ln", "bias"), hid)]
    tensors.append(plain("embed.weight", ("encoder", "embed"), len(Primitive) + more_primitives, hid))
    if shape_encoding:
        for table, sizes in (
            ("embed_spatial", spatial_sizes(config.max_shape[3])),
            ("embed_channel", channel_sizes(config.num_classes, more_channels)),
        ):
            path = ("encoder", "shape_enc", table)
            tensors.append(plain(f"shape_enc.{table}.weight", path, len(sizes) + 1, hid // 4))
    return tensors

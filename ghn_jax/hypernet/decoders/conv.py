"""The convolution decoder of GHN-2 and GHN-1 (paper, Eq. 5)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax

from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, linear, spread
from ghn_jax.hypernet.decoders.fitting import SlabShape
from ghn_jax.hypernet.decoders.slabs import SlabDecoder, SlabKey, vector_tensors
from ghn_jax.hypernet.dense import Linear, dense
from ghn_jax.hypernet.protocols import Decoder, DecoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


@register("conv")
@dataclasses.dataclass(frozen=True)
class ConvDecoderConfig(DecoderConfig):
    """Convolution decoder; it has no options of its own."""

    def weights_read(self, config: "GHNConfig") -> int:
        """Those of the last convolution."""
        return slab_weights(config)

    def build(self, config: "GHNConfig") -> Decoder[SlabKey]:
        """The decoder."""
        return SlabDecoder(config, ConvSlabs(config))

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Slabs, classifier, vectors."""
        return [*slab_tensors(config, pointwise=True), *vector_tensors(config)]

    def to_release(self) -> dict[str, Any]:
        """The release's key."""
        return {"decoder": "conv"}

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint of a GHN-2 whose "decoder" is "conv"."""
        return cls() if release["decoder"] == "conv" and release.get("is_ghn2", True) else None


Crop = Callable[[int, int], slice]
"""(S, size) -> the pixels of an axis of S that are kept for a kernel of some size."""


def corner(_: int, size: int) -> slice:
    """The first ones, as GHN-1 and GHN-2 do."""
    return slice(size)


class ConvSlabs(nn.Module):
    """Linear layer to (S, S, 4 D), then two pointwise convolutions to in * out channels.

    Attributes:
      config: of the hypernetwork.
      crop: which pixels smaller kernels are.
      small: whether last layers start small (see `dense`).
    """

    config: "GHNConfig"
    crop: Crop = corner
    small: bool = False

    def setup(self) -> None:
        """Creates the layers."""
        hid, (rows, columns, size, _) = self.config.hid, self.config.max_shape
        self.fc = Linear(hid, (size, size, 4 * hid))
        self.conv_0 = dense(4 * hid, 8 * hid)
        self.conv_2 = Linear(8 * hid, (columns, rows), self.small)
        self.class_layer_predictor = dense(rows, self.config.num_classes, small=self.small)

    def __call__(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> (B, kh, kw, in, out), at most `max_shape` of each."""
        height, width, in_size, out_size = shape
        size = self.config.max_shape[2]
        hidden = nn.relu(self.fc.part(states, self.crop(size, height), self.crop(size, width)))
        return self.conv_2.part(nn.relu(self.conv_0(hidden)), slice(in_size), slice(out_size))

    def classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> (B, 1, 1, in, K): a slab at 1 x 1, ReLU, and a linear map over its out axis."""
        return self.class_layer_predictor(nn.relu(self(states, (1, 1, in_size, self.config.max_shape[0]))))


def slab_weights(config: "GHNConfig") -> int:
    """Number of weights of the last of the convolutions."""
    return 8 * config.hid * math.prod(config.max_shape[:2])


def slab_tensors(config: "GHNConfig", pointwise: bool) -> list[ReleaseTensor]:
    """The convolution decoder's tensors in the release's checkpoints, linear layers or pointwise convolutions."""
    hid, classes, (rows, columns, size, _) = config.hid, config.num_classes, config.max_shape
    classifier = ("decoder", "class_layer_predictor")
    return [
        *spread("decoder.fc.0", ("decoder", "fc"), hid, (4 * hid, size, size), (1, 2, 0)),
        *linear("decoder.conv.0", ("decoder", "conv_0"), 8 * hid, 4 * hid, pointwise=pointwise),
        *spread("decoder.conv.2", ("decoder", "conv_2"), 8 * hid, (rows, columns), (1, 0), pointwise=pointwise),
        *linear("decoder.class_layer_predictor.1", classifier, classes, rows, pointwise=pointwise),
    ]

"""The decoder of GHN-3: that of GHN-2 with other rules of fitting (docs/method.md, section 15).

Kernels are cut from the centre of their slab instead of the corner, and resized where they are larger; any number of
classes is decoded; position tables over a sequence begin with a random token.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax

from ghn_jax.graphs.param_spec import VECTOR_ROLES, ParamSpec, Role
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor
from ghn_jax.hypernet.decoders.conv import ConvSlabs, slab_tensors, slab_weights
from ghn_jax.hypernet.decoders.fitting import (
    decoded_shape,
    fit_token_table,
    fit_vector,
    is_token_table,
    lay_out,
    normalised,
    slab_shape,
    tile,
)
from ghn_jax.hypernet.decoders.slabs import (
    CLASSIFIERS,
    KERNELS,
    SlabKey,
    VectorDecoder,
    decode_group,
    vector_key,
    vector_tensors,
)
from ghn_jax.hypernet.dense import PRECISION
from ghn_jax.hypernet.json_fields import check_types
from ghn_jax.hypernet.protocols import Decoder, DecoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


@register("centred_conv")
@dataclasses.dataclass(frozen=True)
class CentredDecoderConfig(DecoderConfig):
    """Convolution decoder of GHN-3.

    Attributes:
      token_seed: of the random first token of position tables over a sequence, where the release draws anew each time.
    """

    token_seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "GHN config: decoder")

    def weights_read(self, config: "GHNConfig") -> int:
        """Those of the last convolution."""
        return slab_weights(config)

    def build(self, config: "GHNConfig") -> Decoder[SlabKey]:
        """The decoder."""
        return CentredDecoder(self, config)

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Slabs, classifier, vectors."""
        return [*slab_tensors(config, pointwise=False), *vector_tensors(config)]

    def to_release(self) -> dict[str, Any]:
        """The release's key; whose rules are meant is said by the encoder."""
        return {"decoder": "conv"}

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint that says that it is no GHN-2, and has no low-rank decoder."""
        return None if release.get("is_ghn2", True) or release.get("lora", False) else cls()


def centre(size: int, wanted: int) -> slice:
    """The pixels around the middle of an axis: from c - wanted // 2 to c + ceil(wanted / 2), c being size // 2."""
    middle = size // 2
    return slice(max(0, middle - wanted // 2), min(size, middle + -(-wanted // 2)))


class CentredDecoder(nn.Module):
    """Kernels from the centre of slabs, vectors by an MLP."""

    options: CentredDecoderConfig
    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        self.decoder = ConvSlabs(self.config, centre, small=True)
        self.decoder_1d = VectorDecoder(self.config, small=True)

    @nn.nowrap
    def key(self, spec: ParamSpec) -> SlabKey:
        """Group of a tensor.

        Raises:
          ValueError: for a classifier larger than 1 x 1.
        """
        if spec.role in VECTOR_ROLES:
            return vector_key(spec)
        height, width, in_size, out_size = slab_shape(self.config, spec)
        if spec.role is Role.CLASSIFIER_KERNEL:
            if (height, width) != (1, 1):
                raise ValueError(f"the classifier {spec.name!r} has shape {spec.shape}, but only 1 x 1 is predicted")
            return SlabKey(CLASSIFIERS, (1, 1, in_size, self.config.num_classes))
        size = self.config.max_shape[2]
        return SlabKey(KERNELS, (min(height, size), min(width, size), in_size, out_size))

    def decode(self, rows: jax.Array, key: SlabKey) -> jax.Array:
        """(B, D) -> slabs (B, kh, kw, in, out) or vectors (B, n)."""
        return decode_group(self.decoder, self.decoder_1d, rows, key)

    @nn.nowrap
    def fit(self, row: jax.Array, spec: ParamSpec) -> jax.Array:
        """Resized, cut, tiled, normalised and laid out."""
        if spec.role in VECTOR_ROLES:
            return fit_vector(self.config, row, spec)
        out_size, in_size, height, width = decoded_shape(spec)
        if (height, width) != row.shape[:2]:
            row = jax.image.resize(row, (height, width, *row.shape[2:]), "linear", antialias=False, precision=PRECISION)
        row = tile(row, 2, self.config.max_shape[1], in_size)
        if is_token_table(spec):
            return fit_token_table(row, spec, self.options.token_seed)
        # The classifier's slab has all of the hypernetwork's classes; others repeat after the largest decoded size.
        classes = spec.role is Role.CLASSIFIER_KERNEL
        row = tile(row, 3, self.config.num_classes if classes else self.config.max_shape[0], out_size)
        return lay_out(normalised(self.config, row, spec), spec)

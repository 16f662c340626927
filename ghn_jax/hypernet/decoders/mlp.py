"""The MLP decoder (paper, section 2.3, and the ablation of the decoder)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax

from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, linear, spread
from ghn_jax.hypernet.decoders.fitting import SlabShape
from ghn_jax.hypernet.decoders.slabs import SlabDecoder, SlabKey, vector_tensors
from ghn_jax.hypernet.dense import MLP, Linear
from ghn_jax.hypernet.protocols import Decoder, DecoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


@register("mlp")
@dataclasses.dataclass(frozen=True)
class MLPDecoderConfig(DecoderConfig):
    """MLP decoder; it has no options of its own."""

    def build(self, config: "GHNConfig") -> Decoder[SlabKey]:
        """The decoder."""
        return SlabDecoder(config, MLPSlabs(config))

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Slabs, classifier, vectors."""
        hid, classes, (rows, columns, size, _) = config.hid, config.num_classes, config.max_shape
        mlp, classifier = ("decoder", "mlp"), ("decoder", "class_layer_predictor")
        return [
            *linear("decoder.mlp.fc.0", (*mlp, "fc_0"), 2 * hid, hid),
            *spread("decoder.mlp.fc.2", (*mlp, "fc_2"), 2 * hid, (rows, columns, size, size), (2, 3, 1, 0)),
            *spread("decoder.class_layer_predictor.1", classifier, 2 * hid, (classes, rows), (1, 0)),
            *vector_tensors(config),
        ]

    def to_release(self) -> dict[str, Any]:
        """The release's key."""
        return {"decoder": "mlp"}

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint whose "decoder" is "mlp"."""
        return cls() if release["decoder"] == "mlp" else None


class MLPSlabs(nn.Module):
    """MLP straight to (S, S, in, out)."""

    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        hid, (rows, columns, size, _) = self.config.hid, self.config.max_shape
        self.mlp = MLP(hid, 2 * hid, (size, size, columns, rows))
        self.class_layer_predictor = Linear(2 * hid, (rows, self.config.num_classes))

    def __call__(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> (B, kh, kw, in, out), at most `max_shape` of each."""
        return self.mlp(states, *(slice(size) for size in shape))

    def classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> (B, 1, 1, in, K): first layer, ReLU, linear. The release reads its first `in` of O rows."""
        return self.class_layer_predictor.part(self.mlp.first(states), slice(in_size))[:, None, None]

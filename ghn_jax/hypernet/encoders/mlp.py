"""The encoder of the MLP baseline, which does not see the graph (paper, section 4.1)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.linen as nn
import jax

from ghn_jax.graphs.batching import GraphBatch
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, two_layers
from ghn_jax.hypernet.dense import MLP, layer_norm
from ghn_jax.hypernet.encoders import node_features
from ghn_jax.hypernet.protocols import Encoder, EncoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


@register("mlp")
@dataclasses.dataclass(frozen=True)
class MLPEncoderConfig(EncoderConfig):
    """Two layers for each node alone.

    Attributes:
      layernorm: LayerNorm of the states before they are decoded.
      shape_encoding: False for the ablation without shapes in the node features.
    """

    layernorm: bool = True
    shape_encoding: bool = True

    def build(self, config: "GHNConfig") -> Encoder:
        """The encoder."""
        return MLPEncoder(self, config)

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Embeddings, LayerNorm and the two layers."""
        tensors = node_features.release_tensors(config, self.layernorm, self.shape_encoding)
        return tensors + two_layers("gnn.fc", ("gnn", "fc"), (config.hid, config.hid, config.hid))

    def to_release(self) -> dict[str, Any]:
        """The release's keys; "ve" only says how its graphs were made."""
        return {"hypernet": "mlp", "ve": True, "layernorm": self.layernorm}

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint whose "hypernet" is "mlp"."""
        return cls(layernorm=bool(release["layernorm"])) if release["hypernet"] == "mlp" else None


class MLPEncoder(nn.Module):
    """Node features, D -> D -> D with ReLU after both, LayerNorm."""

    options: MLPEncoderConfig
    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        self.encoder = node_features.NodeFeatures(self.config, self.options.shape_encoding)
        self.gnn = _NodeMLP(self.config.hid)
        if self.options.layernorm:
            self.ln = layer_norm()

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """Graphs -> states (G, N, D)."""
        states = self.gnn(self.encoder(batch))
        return self.ln(states) if self.options.layernorm else states


class _NodeMLP(nn.Module):
    """The two layers under their names in checkpoints."""

    hid: int

    def setup(self) -> None:
        self.fc = MLP(self.hid, self.hid, (self.hid,))

    def __call__(self, states: jax.Array) -> jax.Array:
        return nn.relu(self.fc(states))

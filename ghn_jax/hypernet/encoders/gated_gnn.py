"""The encoder of GHN-2 and GHN-1: message passing by a gated GNN (paper, section 2.2; Eq. 3 and 4)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.graphs.batching import VIRTUAL_EDGE_CUTOFF, GraphBatch
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, grid, plain, two_layers
from ghn_jax.hypernet.dense import Linear, fan_in_uniform, layer_norm
from ghn_jax.hypernet.encoders import node_features
from ghn_jax.hypernet.encoders.sweep import SweepWeights, sweep
from ghn_jax.hypernet.json_fields import check_types
from ghn_jax.hypernet.protocols import Encoder, EncoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig

MAX_ROUNDS: Final = 64
"""Each repetition is compiled on its own."""


@register("gatedgnn")
@dataclasses.dataclass(frozen=True)
class GatedGNNConfig(EncoderConfig):
    """Gated GNN (paper, Table 4 for the ablations).

    Attributes:
      virtual_edges: whether messages also come from nodes up to `s_max` edges away (Eq. 4).
      s_max: largest distance of a virtual edge.
      layernorm: LayerNorm of the states before they are decoded.
      backward_sweep: False for the ablation with a forward sweep only.
      rounds: T, repetitions of the sweeps.
      shape_encoding: False for the ablation without shapes in the node features.
    """

    virtual_edges: bool = True
    s_max: int = VIRTUAL_EDGE_CUTOFF
    layernorm: bool = True
    backward_sweep: bool = True
    rounds: int = 1
    shape_encoding: bool = True

    def __post_init__(self) -> None:
        check_types(self, "GHN config: encoder")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise ValueError(f"GHN config: rounds must be between 1 and {MAX_ROUNDS}, got {self.rounds}")
        if not 1 <= self.s_max <= 250:
            raise ValueError(f"GHN config: s_max must be between 1 and 250, got {self.s_max}")

    @property
    def cutoff(self) -> int:
        """Largest distance that the sweeps use."""
        return self.s_max if self.virtual_edges else 1

    def build(self, config: "GHNConfig") -> Encoder:
        """The encoder."""
        return GatedGNNEncoder(self, config)

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Embeddings, LayerNorm, messages and GRU."""
        hid, hidden = config.hid, config.hid // 2 if self.virtual_edges else config.hid
        tensors = node_features.release_tensors(config, self.layernorm, self.shape_encoding)
        tensors += two_layers("gnn.mlp.fc", ("gnn", "mlp"), (hid, hidden, hid))
        if self.virtual_edges:
            tensors += two_layers("gnn.mlp_ve.fc", ("gnn", "mlp_ve"), (hid, hidden, hid))
        gates = (("input", "ih"), ("hidden", "hh"))
        for ours, theirs in gates:
            path = ("gnn", "gru", f"{ours}_kernel")
            tensors.append(grid(f"gnn.gru.weight_{theirs}", path, (3 * hid, hid), (3 * hid, hid), (1, 0)))
        for ours, theirs in gates:
            tensors.append(plain(f"gnn.gru.bias_{theirs}", ("gnn", "gru", f"{ours}_bias"), 3 * hid))
        return tensors

    def to_release(self) -> dict[str, Any]:
        """The release's keys; its format has no place for other ablations than these two."""
        return {"hypernet": "gatedgnn", "ve": self.virtual_edges, "layernorm": self.layernorm}

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint whose "hypernet" is "gatedgnn", as a GHN-3's is too, which says that it is no GHN-2."""
        if release["hypernet"] != "gatedgnn" or not release.get("is_ghn2", True):
            return None
        return cls(virtual_edges=bool(release["ve"]), layernorm=bool(release["layernorm"]))


class GatedGNNEncoder(nn.Module):
    """Node features, message passing, LayerNorm."""

    options: GatedGNNConfig
    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        self.encoder = node_features.NodeFeatures(self.config, self.options.shape_encoding)
        self.gnn = GatedGNN(self.options, self.config.hid)
        if self.options.layernorm:
            self.ln = layer_norm()

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """Graphs -> states (G, N, D). Distances above the cutoff are ignored."""
        distances = jnp.asarray(batch.distances)
        distances = jnp.where(distances <= self.options.cutoff, distances, 0)
        states = self.gnn(self.encoder(batch), distances, jnp.asarray(batch.num_nodes).max())
        return self.ln(states) if self.options.layernorm else states


class GatedGNN(nn.Module):
    """Forward and backward sweeps, repeated `rounds` times with the same weights."""

    options: GatedGNNConfig
    hid: int

    def setup(self) -> None:
        """Creates the layers."""
        hidden = self.hid // 2 if self.options.virtual_edges else self.hid
        self.mlp = Message(self.hid, hidden)
        if self.options.virtual_edges:
            self.mlp_ve = Message(self.hid, hidden)
        self.gru = GRU(self.hid)

    def __call__(self, states: jax.Array, distances: jax.Array, num_steps: jax.Array) -> jax.Array:
        """States (G, N, D), uint8 distances (G, N, N) from row to column, nodes of the largest graph -> (G, N, D)."""
        weights = self._weights()
        predecessors = jnp.swapaxes(distances, 1, 2)
        for _ in range(self.options.rounds):
            states = sweep(False, weights, states, predecessors, num_steps)
            if self.options.backward_sweep:
                states = sweep(True, weights, states, distances, num_steps)
        return states

    def _weights(self) -> SweepWeights:
        messages = (self.mlp, self.mlp_ve) if self.options.virtual_edges else (self.mlp,)
        first = [message.fc_0.weights() for message in messages]
        second = [message.fc_2.weights() for message in messages]
        return SweepWeights(
            jnp.concatenate([kernel for kernel, _ in first], axis=1),
            jnp.concatenate([bias for _, bias in first]),
            jax.scipy.linalg.block_diag(*[kernel for kernel, _ in second]),
            jnp.concatenate([bias for _, bias in second]),
            *self.gru.weights(),
        )


class Message(nn.Module):
    """Weights of the MLP of a message, D -> hidden -> D, ReLU after both; `sweep` computes it."""

    features: int
    hidden: int

    def setup(self) -> None:
        """Creates the layers."""
        self.fc_0 = Linear(self.features, (self.hidden,))
        self.fc_2 = Linear(self.hidden, (self.features,))


class GRU(nn.Module):
    """Weights of a `torch.nn.GRUCell`: kernels (D, 3 D) and biases (3 D,), gates r, z, n."""

    features: int

    def setup(self) -> None:
        """Creates the weights."""
        init = fan_in_uniform(self.features)
        self.input_kernel = self.param("input_kernel", init, (self.features, 3 * self.features))
        self.input_bias = self.param("input_bias", init, (3 * self.features,))
        self.hidden_kernel = self.param("hidden_kernel", init, (self.features, 3 * self.features))
        self.hidden_bias = self.param("hidden_bias", init, (3 * self.features,))

    def weights(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Input kernel and bias, hidden kernel and bias."""
        return self.input_kernel, self.input_bias, self.hidden_kernel, self.hidden_bias

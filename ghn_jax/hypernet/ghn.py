"""`GHN`: the whole hypernetwork as one Flax module whose methods are pure functions of arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.graphs.batching import GraphBatch
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.decoders.slabs import ConvDecoder, MLPDecoder, SlabShape, VectorDecoder
from ghn_jax.hypernet.dense import LayerNorm
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNN, MLPBaseline
from ghn_jax.hypernet.encoders.node_features import NodeEncoder


class GHN(nn.Module):
    """Graph hypernetwork: node states by message passing, then slabs of weights.

    All methods are batched, pure and differentiable. For several devices, compile them with the leading axis (graphs,
    or rows that are decoded) sharded over the mesh.
    """

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        config = self.config
        self.encoder = NodeEncoder(config)
        self.gnn = GatedGNN(config) if config.hypernet == "gatedgnn" else MLPBaseline(config)
        if config.layernorm:
            self.ln = LayerNorm(config.hid)
        self.decoder = ConvDecoder(config) if config.decoder == "conv" else MLPDecoder(config)
        self.decoder_1d = VectorDecoder(config)

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """States (G, N, D) that are decoded; zeros in padded rows. Distances above the config's cutoff are ignored."""
        types, shapes = batch.graph.nodes["type"], batch.graph.nodes["shape"]
        states = self.encoder(jnp.asarray(types), jnp.asarray(shapes))[batch.rows]
        distances = jnp.asarray(batch.distances)
        distances = jnp.where(distances <= self.config.cutoff, distances, 0)
        states = self.gnn(states, distances, jnp.asarray(batch.num_nodes).max())
        if self.config.layernorm:
            states = self.ln(states)
        return jnp.where(batch.node_mask[..., None], states, 0.0)

    def decode_kernels(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> slabs (B, kh, kw, in, out) of convolutions, inner linear layers and position tables."""
        return self.decoder(states, shape)

    def decode_classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> slabs (B, 1, 1, in, K) of the classifier's weight."""
        return self.decoder.classifier(states, in_size)

    def decode_vectors(self, states: jax.Array) -> jax.Array:
        """(B, D) -> (B, 2, max(O, I)): norm weights (row 0) and biases (row 1)."""
        return self.decoder_1d(states)

    def decode_classifier_bias(self, states: jax.Array) -> jax.Array:
        """(B, D) -> (B, 2, K); row 1 is the classifier's bias."""
        return self.decoder_1d.classifier(states)

    def initialise(self, batch: GraphBatch) -> jax.Array:
        """Touches every weight once, for `init`."""
        states = self(batch)
        rows = states[:, 0]
        one = (1, 1, 1, 1)
        parts = (self.decode_kernels(rows, one), self.decode_classifier(rows, 1), self.decode_classifier_bias(rows))
        return sum((part.sum() for part in parts), states.sum())

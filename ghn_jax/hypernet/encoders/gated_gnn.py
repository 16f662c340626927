"""Message passing: the gated GNN of the paper (section 2.2, Eq. 3 and 4) and the MLP baseline."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.dense import MLP, fan_in_uniform
from ghn_jax.hypernet.encoders.sweep import SweepWeights, sweep


class GRU(nn.Module):
    """Weights of a `torch.nn.GRUCell`: kernels (D, 3 D) and biases (3 D,), gates r, z, n."""

    features: int

    def setup(self) -> None:
        """Creates the layers."""
        init = fan_in_uniform(self.features)
        self.input_kernel = self.param("input_kernel", init, (self.features, 3 * self.features))
        self.input_bias = self.param("input_bias", init, (3 * self.features,))
        self.hidden_kernel = self.param("hidden_kernel", init, (self.features, 3 * self.features))
        self.hidden_bias = self.param("hidden_bias", init, (3 * self.features,))

    def weights(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Input kernel and bias, hidden kernel and bias."""
        return self.input_kernel, self.input_bias, self.hidden_kernel, self.hidden_bias


class GatedGNN(nn.Module):
    """Forward and backward sweeps, repeated `rounds` times with the same weights."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        hid = self.config.hid
        self.mlp = MLP(hid, hid // 2 if self.config.virtual_edges else hid, (hid,))
        if self.config.virtual_edges:
            self.mlp_ve = MLP(hid, hid // 2, (hid,))
        self.gru = GRU(hid)

    def __call__(self, states: jax.Array, distances: jax.Array, num_steps: jax.Array) -> jax.Array:
        """States (G, N, D), uint8 distances (G, N, N) from row to column, nodes of the largest graph -> (G, N, D)."""
        weights = self._weights()
        predecessors = jnp.swapaxes(distances, 1, 2)
        for _ in range(self.config.rounds):
            states = sweep(False, weights, states, predecessors, num_steps)
            if self.config.backward_sweep:
                states = sweep(True, weights, states, distances, num_steps)
        return states

    def _weights(self) -> SweepWeights:
        mlps = (self.mlp, self.mlp_ve) if self.config.virtual_edges else (self.mlp,)
        first = [mlp.fc_0.weights() for mlp in mlps]
        second = [mlp.fc_2.weights() for mlp in mlps]
        return SweepWeights(
            jnp.concatenate([kernel for kernel, _ in first], axis=1),
            jnp.concatenate([bias for _, bias in first]),
            jax.scipy.linalg.block_diag(*[kernel for kernel, _ in second]),
            jnp.concatenate([bias for _, bias in second]),
            *self.gru.weights(),
        )


class MLPBaseline(nn.Module):
    """The baseline without a graph: D -> D -> D, ReLU after both."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        self.fc = MLP(self.config.hid, self.config.hid, (self.config.hid,))

    def __call__(self, states: jax.Array, distances: jax.Array, num_steps: jax.Array) -> jax.Array:
        """(G, N, D) -> (G, N, D); distances and steps are unused."""
        del distances, num_steps
        return self.fc(states)

"""NeuPred: a graph convolutional network that reads architectures (Wen et al., ECCV 2020), the paper's baseline.

One-hot primitives, three directed graph convolutions, mean over nodes, a linear layer; trained for each property alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.properties.ranking import tau

WIDTH, LAYERS, HIDDEN = 144, 3, 128


class GraphConvolutions(nn.Module):
    """Predicts a number from nodes and edges; both directions of the edges have weights of their own."""

    dropout: float = 0.1

    @nn.compact
    def __call__(self, nodes: jax.Array, adjacency: jax.Array, there: jax.Array, *, train: bool) -> jax.Array:
        """One-hot nodes (G, N, V), adjacency (G, N, N) with self-loops, and which nodes there are (G, N), to (G,)."""
        forward, backward = (_normalised(a) for a in (adjacency, adjacency.swapaxes(1, 2)))
        x, init = nodes, nn.initializers.xavier_uniform()
        for _ in range(LAYERS):
            one = nn.relu(forward @ nn.Dense(WIDTH, use_bias=False, kernel_init=init)(x))
            other = nn.relu(backward @ nn.Dense(WIDTH, use_bias=False, kernel_init=init)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)((one + other) / 2)
        mean = (x * there[..., None]).sum(axis=1) / there.sum(axis=1, keepdims=True)
        mean = nn.Dropout(self.dropout, deterministic=not train)(
            nn.Dense(HIDDEN, use_bias=False, kernel_init=init)(mean)
        )
        return nn.Dense(1, use_bias=False, kernel_init=init)(mean)[:, 0]


def _normalised(adjacency: jax.Array) -> jax.Array:
    """Rows that sum to 1, or to 0 for padding."""
    return adjacency / jnp.maximum(adjacency.sum(axis=2, keepdims=True), 1)


@dataclasses.dataclass
class NeuralPredictor:
    """Fits and predicts a property of architectures.

    Attributes:
      epochs: passes over the graphs.
      batch_size: graphs of an update; an incomplete batch is left out.
      learning_rate: of Adam, to 0 as a cosine.
      weight_decay: L2, added to the gradient.
      seed: of weights, order and dropout.
    """

    epochs: int = 300
    batch_size: int = 10
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    seed: int = 0

    def fit(self, graphs: Sequence[ArchGraph], truth: Sequence[float]) -> "NeuralPredictor":
        """Learns a property (G,) of graphs, standardised.

        Raises:
          ValueError: for unequally many, fewer than a batch, or a truth that is not finite.
        """
        wanted = np.array(truth, np.float64)
        if len(graphs) != len(wanted) or len(graphs) < self.batch_size or not np.isfinite(wanted).all():
            raise ValueError(
                f"a neural predictor needs as many graphs as finite targets, at least {self.batch_size}, got "
                f"{len(graphs)} and {len(wanted)}"
            )
        self._mean, self._std = float(wanted.mean()), max(float(wanted.std()), 1e-12)
        self._nodes = max(graph.num_nodes for graph in graphs)
        targets = ((wanted - self._mean) / self._std).astype(np.float32)
        network = GraphConvolutions()
        arrays = [np.stack(parts) for parts in zip(*(_padded(graph, self._nodes) for graph in graphs), strict=True)]
        key, init = jax.random.split(jax.random.key(self.seed))
        variables = network.init(init, *(jnp.asarray(part[:1]) for part in arrays), train=False)
        per_epoch = len(graphs) // self.batch_size
        rates = optax.cosine_decay_schedule(self.learning_rate, self.epochs * per_epoch)
        optimiser = optax.chain(optax.add_decayed_weights(self.weight_decay), optax.adam(rates))

        @jax.jit
        def update(variables: Any, moments: Any, batch: tuple[jax.Array, ...], key: jax.Array) -> tuple[Any, Any]:
            *inputs, wanted = batch

            def loss_of(variables: Any) -> jax.Array:
                found: Any = network.apply(variables, *inputs, train=True, rngs={"dropout": key})
                return jnp.mean((found - wanted) ** 2)

            steps, moments = optimiser.update(jax.grad(loss_of)(variables), moments, variables)
            return optax.apply_updates(variables, steps), moments

        moments = optimiser.init(variables)
        for epoch in range(self.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(len(graphs))
            for place in range(per_epoch):
                rows = order[place * self.batch_size : (place + 1) * self.batch_size]
                batch = tuple(jnp.asarray(part[rows]) for part in (*arrays, targets))
                number = jax.random.fold_in(key, epoch * per_epoch + place)
                variables, moments = update(variables, moments, batch, number)
        self._variables, self._network = variables, network
        return self

    def predict(self, graphs: Sequence[ArchGraph]) -> np.ndarray:
        """The property (G,); graphs may be larger than those it was fitted on."""
        apply = jax.jit(lambda *inputs: self._network.apply(self._variables, *inputs, train=False))
        most = max(self._nodes, *(graph.num_nodes for graph in graphs))
        found = []
        for first in range(0, len(graphs), self.batch_size):
            rows = [graphs[i % len(graphs)] for i in range(first, first + self.batch_size)]
            arrays = [np.stack(parts) for parts in zip(*(_padded(graph, most) for graph in rows), strict=True)]
            found.append(np.asarray(apply(*(jnp.asarray(part) for part in arrays))))
        return np.concatenate(found)[: len(graphs)] * self._std + self._mean

    def score(self, graphs: Sequence[ArchGraph], truth: Sequence[float]) -> float:
        """Kendall's tau-b."""
        return tau(self.predict(graphs), np.array(truth))


def _padded(graph: ArchGraph, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-hot nodes (N, V), adjacency with self-loops (N, N) and which nodes there are (N,)."""
    count = graph.num_nodes
    kinds, adjacency = np.zeros((nodes, len(Primitive)), np.float32), np.zeros((nodes, nodes), np.float32)
    kinds[np.arange(count), np.asarray(graph.node_types, int)] = 1
    adjacency[graph.edges[:, 0], graph.edges[:, 1]] = 1
    adjacency[np.arange(count), np.arange(count)] = 1
    return kinds, adjacency, (np.arange(nodes) < count).astype(np.float32)

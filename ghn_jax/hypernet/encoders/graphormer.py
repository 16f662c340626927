"""The encoder of GHN-3: a transformer over all nodes of a graph, biased by its edges (docs/method.md, section 14).

Knyazev, Hwang and Lacoste-Julien, "Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?" (ICML
2023), after Graphormer (Ying et al., NeurIPS 2021).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from ghn_jax.graphs.batching import VIRTUAL_EDGE_CUTOFF, GraphBatch
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, linear, norm, plain
from ghn_jax.hypernet.dense import dense, layer_norm
from ghn_jax.hypernet.encoders import node_features
from ghn_jax.hypernet.encoders.biased_attention import attend, edge_labels
from ghn_jax.hypernet.json_fields import check_types
from ghn_jax.hypernet.protocols import Encoder, EncoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig

EDGE_ROWS = 257
"""Rows of the table of edge labels; label s has row 2 + s, and rows 0 and 1 are never read."""

DEGREE_ROWS, INPUT_DISTANCE_ROWS = 101, 1001
"""Rows of the tables of in- and out-degrees and of distances from the input."""

PLACE_TABLES = {
    "centrality_embed_in": DEGREE_ROWS,
    "centrality_embed_out": DEGREE_ROWS,
    "input_dist_embed": INPUT_DISTANCE_ROWS,
}
"""Tables of a node's place in the graph by name, which is the release's."""

MAX_LAYERS: Final = 128
"""Each is compiled on its own."""

LANGUAGE_PRIMITIVES = 3
LANGUAGE_CHANNELS = (32_000, 50_257, 128_256)
"""What LoGAH's variant for language models has besides the usual vocabulary (rmsnorm, rot_emb, gate) and channels."""


@register("graphormer")
@dataclasses.dataclass(frozen=True)
class GraphormerConfig(EncoderConfig):
    """Transformer over the nodes.

    Attributes:
      layers: L.
      heads: of each layer; must divide D.
      virtual_edges: whether biases tell apart distances up to `s_max`, or only edges from none.
      s_max: largest distance that is told apart.
      layernorm: LayerNorm of the states before they are decoded.
      language: whether the tables have the rows of LoGAH's variant for language models.
      product_dtype: type of the layers' matrix products; sums, norms and softmax stay in float32.
    """

    layers: int = 3
    heads: int = 8
    virtual_edges: bool = True
    s_max: int = VIRTUAL_EDGE_CUTOFF
    layernorm: bool = True
    language: bool = False
    product_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_types(self, "GHN config: encoder")
        if not 1 <= self.layers <= MAX_LAYERS:
            raise ValueError(f"GHN config: layers must be between 1 and {MAX_LAYERS}, got {self.layers}")
        if self.heads < 1:
            raise ValueError(f"GHN config: heads must be positive, got {self.heads}")
        if not 1 <= self.s_max <= 250:
            raise ValueError(f"GHN config: s_max must be between 1 and 250, got {self.s_max}")

    @property
    def cutoff(self) -> int:
        """Largest distance that biases use."""
        return self.s_max if self.virtual_edges else 1

    @property
    def more_primitives(self) -> int:
        """Rows of the table of primitives after those of the vocabulary."""
        return LANGUAGE_PRIMITIVES if self.language else 0

    @property
    def more_channels(self) -> tuple[int, ...]:
        """Channel counts listed besides the usual ones."""
        return LANGUAGE_CHANNELS if self.language else ()

    def build(self, config: "GHNConfig") -> Encoder:
        """The encoder.

        Raises:
          ValueError: if the heads do not divide D.
        """
        if config.hid % self.heads:
            raise ValueError(f"GHN config: heads must divide hid, got {self.heads} heads and hid {config.hid}")
        return GraphormerEncoder(self, config)

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """LayerNorm, embeddings, and the layers, the first of which has the tables too."""
        hid = config.hid
        more = self.more_primitives, self.more_channels
        tensors = node_features.release_tensors(config, self.layernorm, True, *more)
        for layer in range(self.layers):
            name, path = f"gnn.{layer}", ("gnn", f"layer_{layer}")
            tensors += norm(f"{name}.ln1", (*path, "ln_1"), hid)
            tensors += linear(f"{name}.attn.to_qkv", (*path, "to_qkv"), 3 * hid, hid, bias=False)
            tensors += linear(f"{name}.attn.to_out.0", (*path, "to_out"), hid, hid)
            if layer == 0:
                tensors.append(plain(f"{name}.attn.edge_embed.embed.weight", ("gnn", "edge_embed"), EDGE_ROWS, hid))
                tensors += linear(f"{name}.attn.proj_e.0", ("gnn", "proj_e_0"), hid, 2 * hid)
                tensors += linear(f"{name}.attn.proj_e.2", ("gnn", "proj_e_2"), self.heads, hid)
            tensors += norm(f"{name}.ln2", (*path, "ln_2"), hid)
            tensors += linear(f"{name}.ff.net.0", (*path, "ff_0"), 4 * hid, hid)
            tensors += linear(f"{name}.ff.net.3", (*path, "ff_3"), hid, 4 * hid)
            if layer == 0:
                for table, rows in PLACE_TABLES.items():
                    tensors.append(plain(f"{name}.{table}.weight", ("gnn", table), rows, hid))
        return tensors

    def to_release(self) -> dict[str, Any]:
        """The release's keys; its format has no place for `s_max` and `product_dtype`."""
        return {
            "hypernet": "gatedgnn",
            "ve": self.virtual_edges,
            "layernorm": self.layernorm,
            "layers": self.layers,
            "heads": self.heads,
            "is_ghn2": False,
        }

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint that says that it is no GHN-2, a key that only the release of GHN-3 writes."""
        if release.get("is_ghn2", True):
            return None
        return cls(
            layers=release.get("layers", 3),
            heads=release.get("heads", 8),
            virtual_edges=release["ve"],
            layernorm=release["layernorm"],
            language=release.get("language", False),
        )


def table_initialisation(width: int) -> Initializer:
    """Normal of standard deviation width^-1/2, cut at +-2."""
    deviation = 1 / math.sqrt(width)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return deviation * jax.random.truncated_normal(key, -2 / deviation, 2 / deviation, shape, dtype)

    return init


class GraphormerEncoder(nn.Module):
    """Node features, transformer, LayerNorm."""

    options: GraphormerConfig
    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        options = self.options
        self.encoder = node_features.NodeFeatures(
            self.config,
            more_primitives=options.more_primitives,
            more_channels=options.more_channels,
            initialisation=table_initialisation,
        )
        self.gnn = Graphormer(options, self.config.hid)
        if options.layernorm:
            self.ln = layer_norm()

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """Graphs -> states (G, N, D). Distances above the cutoff are ignored."""
        distances = jnp.asarray(batch.distances)
        distances = jnp.where(distances <= self.options.cutoff, distances, 0)
        states = self.gnn(self.encoder(batch), distances, jnp.asarray(batch.node_mask))
        return self.ln(states) if self.options.layernorm else states


class Graphormer(nn.Module):
    """Tables of a node's place in the graph, the bias of its edges, and the layers."""

    options: GraphormerConfig
    hid: int

    def setup(self) -> None:
        """Creates the layers."""
        init = table_initialisation(self.hid)
        self.centrality_embed_in = self.param("centrality_embed_in", init, (DEGREE_ROWS, self.hid))
        self.centrality_embed_out = self.param("centrality_embed_out", init, (DEGREE_ROWS, self.hid))
        self.input_dist_embed = self.param("input_dist_embed", init, (INPUT_DISTANCE_ROWS, self.hid))
        self.edge_embed = self.param("edge_embed", init, (EDGE_ROWS, self.hid))
        self.proj_e_0 = dense(2 * self.hid, self.hid)
        self.proj_e_2 = dense(self.hid, self.options.heads)
        self.layer = [Layer(self.options, self.hid) for _ in range(self.options.layers)]

    def __call__(self, states: jax.Array, distances: jax.Array, node_mask: jax.Array) -> jax.Array:
        """States (G, N, D), uint8 distances (G, N, N) from row to column, bool (G, N) of real nodes -> (G, N, D)."""
        edges = distances == 1
        from_input = jnp.minimum(distances[:, 0], INPUT_DISTANCE_ROWS - 1)
        states = states + self.centrality_embed_in[jnp.minimum(edges.sum(1), DEGREE_ROWS - 1)]
        states = states + self.centrality_embed_out[jnp.minimum(edges.sum(2), DEGREE_ROWS - 1)]
        states = states + self.input_dist_embed[from_input]
        table, labels = self.bias_table(), edge_labels(distances, self.options.cutoff)
        num_nodes = node_mask.sum(axis=1)
        for layer in self.layer:
            states = layer(states, table, labels, num_nodes)
        return states

    def bias_table(self) -> jax.Array:
        """(2 cutoff + 1, heads): bias of every pair of labels from query to key and back, as `edge_labels` counts them.

        One of the two labels is always 0, since the graph has no cycle.
        """
        none = self.edge_embed[2]
        ends = self.edge_embed[3 : 3 + self.options.cutoff]
        others = jnp.broadcast_to(none, ends.shape)
        forward, backward = jnp.concatenate([ends, others], axis=1), jnp.concatenate([others, ends], axis=1)
        pairs = jnp.concatenate([jnp.concatenate([none, none])[None], forward, backward])
        return self.proj_e_2(nn.relu(self.proj_e_0(pairs)))


class Layer(nn.Module):
    """Attention among the nodes of each graph and two layers for each node, both after LayerNorm and added."""

    options: GraphormerConfig
    hid: int

    def setup(self) -> None:
        """Creates the layers."""
        # None is the type of the states, which is float64 in tests.
        dtype = None if self.options.product_dtype == "float32" else jnp.dtype(self.options.product_dtype)
        self.ln_1, self.ln_2 = layer_norm(), layer_norm()
        self.to_qkv = dense(self.hid, 3 * self.hid, bias=False, dtype=dtype)
        self.to_out = dense(self.hid, self.hid, dtype=dtype)
        self.ff_0 = dense(self.hid, 4 * self.hid, dtype=dtype)
        self.ff_3 = dense(4 * self.hid, self.hid, dtype=dtype)

    def __call__(self, states: jax.Array, table: jax.Array, labels: jax.Array, num_nodes: jax.Array) -> jax.Array:
        """States (G, N, D); table, labels and number of real nodes as of `attend` -> (G, N, D)."""
        attended = attend(self.to_qkv(self.ln_1(states)), table, labels, num_nodes)
        states = states + self.to_out(attended).astype(states.dtype)
        hidden = nn.gelu(self.ff_0(self.ln_2(states)), approximate=False)
        return states + self.ff_3(hidden).astype(states.dtype)

"""An encoder and a decoder that nothing else knows: each is defined here in one place, and everything works with them.

They are those of the next hypernetworks in miniature: attention over all nodes of a graph with biases by distances both
ways and in- and out-degrees; and tensors as products of two low-rank matrices, with position tables of their own rule.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_graphs import TINY, mixed_graph, random_graph

from ghn_jax.graphs import ParamSpec, Role
from ghn_jax.graphs.batching import GraphBatch
from ghn_jax.hypernet import (
    GHN,
    GHNConfig,
    PretrainedGHN,
    embed,
    export_release_checkpoint,
    init_ghn,
    load_ghn,
    predict,
    predict_params,
    predict_with_vjp,
    prepare,
    protocols,
    save_checkpoint,
    save_file,
)
from ghn_jax.hypernet.decoders.fitting import lay_out, tile
from ghn_jax.hypernet.dense import dense
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.node_features import NodeFeatures
from ghn_jax.hypernet.programs import embed_program
from ghn_jax.metatraining.command import parse_config
from ghn_jax.metatraining.config_files import load_config, save_config

HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class AttentionConfig(protocols.EncoderConfig):
    """Attributes.

    Attributes:
      attention_heads: of the one layer.
      furthest: largest distance.
    """

    attention_heads: int = 2
    furthest: int = 5

    @property
    def cutoff(self) -> int:
        return self.furthest

    def build(self, config: GHNConfig) -> protocols.Encoder:
        return Attention(self, config)


class Attention(nn.Module):
    options: AttentionConfig
    config: GHNConfig

    @nn.compact
    def __call__(self, batch: GraphBatch) -> jax.Array:
        hid, heads, rows = self.config.hid, self.options.attention_heads, self.options.furthest + 1
        normal, distances, mask = (
            nn.initializers.normal(0.1),
            jnp.asarray(batch.distances),
            jnp.asarray(batch.node_mask),
        )
        degrees = jnp.stack([(distances == 1).sum(1), (distances == 1).sum(2)], -1)
        x = NodeFeatures(self.config, name="encoder")(batch)
        x = x + self.param("centrality", normal, (10, hid))[jnp.minimum(degrees, 9)].sum(-2)
        x = x + self.param("input_distance", normal, (rows, hid))[distances[:, 0]]
        table = self.param("edge_embed", normal, (2 * rows, heads))
        bias = table[distances] + table[rows + jnp.swapaxes(distances, 1, 2)]
        query, key, value = jnp.split(dense(hid, (heads, 3 * hid // heads))(x), 3, axis=-1)
        logits = jnp.einsum("gihd,gjhd->gijh", query, key, precision=HIGHEST) / math.sqrt(hid // heads) + bias
        weights = jax.nn.softmax(jnp.where(mask[:, None, :, None], logits, -1e9), axis=2)
        return x + jnp.einsum("gijh,gjhd->gihd", weights, value, precision=HIGHEST).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class LowRankConfig(protocols.DecoderConfig):
    """Attributes.

    Attributes:
      rank: of the products.
      noise_seed: of the first token of position tables.
    """

    rank: int = 2
    noise_seed: int = 0

    def build(self, config: GHNConfig) -> protocols.Decoder:
        return LowRank(self, config)


class LowRank(nn.Module):
    """M = A B^T of (out kh, in kw); vectors are (2 n, 1) products of the same two."""

    options: LowRankConfig
    config: GHNConfig

    def setup(self) -> None:
        size, _, kernel, _ = self.config.max_shape
        self.decoder_factors = dense(self.config.hid, (2, size * max(kernel, 2), self.options.rank))

    @nn.nowrap
    def key(self, spec: ParamSpec) -> tuple[int, ...]:
        largest = self.config.max_shape[0]
        if spec.rank == 1:
            return (min(spec.size, largest),)
        out_size, in_size, height, width = spec.canonical_shape
        side = self.config.max_shape[2]
        return min(out_size, largest), min(in_size, largest), min(height, side), min(width, side)

    def decode(self, rows: jax.Array, key: tuple[int, ...]) -> jax.Array:
        left, right = jnp.moveaxis(self.decoder_factors(rows), 1, 0)
        if len(key) == 1:
            both = jnp.einsum("bir,br->bi", left[:, : 2 * key[0]], right[:, 0], precision=HIGHEST)
            return both.reshape(-1, 2, key[0])
        o, i, kh, kw = key
        product = jnp.einsum("bxr,byr->bxy", left[:, : o * kh], right[:, : i * kw], precision=HIGHEST)
        return product.reshape(-1, o, kh, i, kw).transpose(0, 2, 4, 3, 1)

    @nn.nowrap
    def fit(self, row: jax.Array, spec: ParamSpec) -> jax.Array:
        if spec.rank == 1:
            return tile(row[int(spec.role is not Role.SCALE)], 0, row.shape[1], spec.size)
        out_size, in_size, height, width = spec.canonical_shape
        sizes = (height, width, in_size, out_size)
        if (height, width) != row.shape[:2]:
            row = jax.image.resize(row, (height, width, *row.shape[2:]), "linear", antialias=False, precision=HIGHEST)
        for axis, size in enumerate(sizes):
            row = tile(row, axis, row.shape[axis], size)
        if spec.role is Role.POSITION:
            row = row.at[0, 0].set(0.02 * jax.random.normal(jax.random.key(self.options.noise_seed), row.shape[2:]))
        return lay_out(row, spec)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    protocols.register("toy attention")(AttentionConfig)
    protocols.register("toy low-rank")(LowRankConfig)
    yield
    del protocols.ENCODERS["toy attention"], protocols.DECODERS["toy low-rank"]


CONFIGS = {
    "encoder": TINY.replace(encoder=AttentionConfig(furthest=7)),
    "decoder": TINY.replace(decoder=LowRankConfig(rank=3)),
    "both": TINY.replace(encoder=AttentionConfig(attention_heads=4), decoder=LowRankConfig()),
}


@pytest.fixture(params=CONFIGS)
def pretrained(request: pytest.FixtureRequest) -> PretrainedGHN:
    ghn = GHN(CONFIGS[request.param])
    return PretrainedGHN(ghn, init_ghn(ghn, jax.random.key(0)))


def test_values_are_the_same_alone_padded_and_beside_others(pretrained: PretrainedGHN) -> None:
    graphs = [mixed_graph(), random_graph(1, 33), mixed_graph("wider", 9)]
    together = predict_params(pretrained.ghn, pretrained.variables, graphs)
    for graph, beside in zip(graphs, together, strict=True):
        alone = predict(graph, pretrained, with_embeddings=True)
        assert alone["embeddings"].shape == (graph.num_nodes, TINY.hid)
        assert {spec.path: spec.shape for spec in graph.params} == {path: a.shape for path, a in beside.items()}
        for path, value in beside.items():
            expected = alone["params"]
            for part in path:
                expected = expected[part]
            np.testing.assert_allclose(value, expected, atol=1e-6 * float(jnp.abs(value).max()) + 1e-9, rtol=0)
    assert embed(graphs, pretrained).shape == (3, TINY.hid)


def test_gradients_are_those_of_jax(pretrained: PretrainedGHN) -> None:
    ghn, variables, graph = pretrained.ghn, pretrained.variables, mixed_graph()
    (params,), vjp = predict_with_vjp(ghn, variables, [graph])
    generator = np.random.default_rng(0)
    weights = {path: jnp.asarray(generator.normal(size=value.shape), jnp.float32) for path, value in params.items()}
    prepared = prepare(ghn.config, [graph])

    def loss(variables: Any) -> jax.Array:
        states = embed_program(ghn)(variables, prepared.batch)[0]
        total = jnp.zeros(())
        for spec in graph.params:
            row = ghn.decode(variables, states[spec.node][None], ghn.decoder.key(spec))[0]
            total += jnp.vdot(ghn.decoder.fit(row, spec), weights[spec.path])
        return total

    def close(found: jax.Array, expected: jax.Array) -> None:
        np.testing.assert_allclose(found, expected, atol=2e-5 * float(jnp.abs(expected).max()) + 1e-9, rtol=0)

    jax.tree.map(close, vjp([weights]), jax.grad(loss)(variables))


def test_files_and_json_give_it_back(pretrained: PretrainedGHN, tmp_path: pathlib.Path) -> None:
    config, variables = pretrained.config, pretrained.variables
    assert GHNConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    save_file(tmp_path / "ghn.npz", config, variables)
    save_checkpoint(tmp_path / "folder", config, variables)
    for source in ("ghn.npz", "folder"):
        loaded = load_ghn(tmp_path / source)
        assert loaded.config == config
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    with pytest.raises(ValueError, match="release's checkpoint format knows no 'toy"):
        export_release_checkpoint(tmp_path / "ghn.pt", config, variables)


def test_command_line_and_runs_know_it(tmp_path: pathlib.Path) -> None:
    options = ["--preset=demo", "--encoder=toy attention", "--attention-heads=4", "--decoder", "toy low-rank"]
    config = parse_config([*options, "--rank=5", "--hid=8"], "")
    assert config.ghn.encoder == AttentionConfig(attention_heads=4)
    assert config.ghn.decoder == LowRankConfig(rank=5)
    assert (config.ghn.hid, config.ghn.max_shape) == (8, (16, 16, 11, 11))
    save_config(config, tmp_path)
    assert load_config(tmp_path) == config
    with pytest.raises(SystemExit):
        parse_config(["--encoder=unknown"], "")


def test_names_are_given_once() -> None:
    with pytest.raises(ValueError, match="'gatedgnn' is the name of GatedGNNConfig already"):
        protocols.register("gatedgnn")(AttentionConfig)
    assert protocols.ENCODERS["gatedgnn"] is GatedGNNConfig


def test_weights_of_a_decoder_are_told_by_their_names() -> None:
    class Misnamed(LowRank):
        def setup(self) -> None:
            self.factors = dense(self.config.hid, (2, 16, self.options.rank))

        def decode(self, rows: jax.Array, key: tuple[int, ...]) -> jax.Array:
            return self.factors(rows)

    class MisnamedConfig(LowRankConfig):
        def build(self, config: GHNConfig) -> protocols.Decoder:
            return Misnamed(self, config)

    with pytest.raises(ValueError, match=r"must have names that begin with 'decoder'.*: got factors"):
        init_ghn(GHN(TINY.replace(decoder=MisnamedConfig())), jax.random.key(0))

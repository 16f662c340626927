"""Every family of hypernetworks goes in where one is taken, and what GHN-3 and the low-rank decoder promise holds."""

import dataclasses
import math
import pathlib
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import predict_params
import pytest
from small_graphs import mixed_graph, random_graph
from small_models import Small
from tiny_networks import IMAGE_SIZE, tiny_batch

from ghn_jax.evaluation import EvaluationConfig, evaluate
from ghn_jax.graphs import ParamSpec, Role
from ghn_jax.graphs.batching import GraphBatch, batch_graphs
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import GHN, GHNConfig, PretrainedGHN, embed, init_ghn, predict, save_file
from ghn_jax.hypernet.config import PresetName
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.graphormer import Graphormer, GraphormerConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.programs import embed_program
from ghn_jax.images import load_images
from ghn_jax.initialising import init_like

GHN2 = GHNConfig(max_shape=(8, 8, 5, 5), num_classes=10, hid=8)
GHN3 = GHN2.replace(encoder=GraphormerConfig(layers=2, heads=2), decoder=CentredDecoderConfig())
LOW_RANK = LowRankDecoderConfig(rank=2, width=256)
FAMILIES = {
    "ghn1": GHN2.replace(normalization="none", encoder=GatedGNNConfig(virtual_edges=False, layernorm=False)),
    "mlp": GHN2.replace(encoder=MLPEncoderConfig()),
    "ghn2 low rank": GHN2.replace(decoder=LOW_RANK),
    "ghn3": GHN3,
    "ghn3 low rank": GHN3.replace(decoder=dataclasses.replace(LOW_RANK, vector_decoder=True)),
}
NEW = ("ghn2 low rank", "ghn3", "ghn3 low rank")


def pretrained(config: GHNConfig) -> PretrainedGHN:
    """Weights of the right shapes, without compiling anything."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    drawn = jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)
    return PretrainedGHN(GHN(config), jax.device_put(drawn))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_takes_every_family(family: str, tmp_path: pathlib.Path) -> None:
    ghn = pretrained(FAMILIES[family])
    model, images = Small(10), jnp.zeros((1, 8, 8, 3))
    graph = trace(model, images.shape)
    params = predict(graph, ghn, allow_missing=True)["params"]
    flat: Any = flax.traverse_util.flatten_dict(params)
    predicted = {path: leaf.shape for path, leaf in flat.items()}
    assert predicted == {spec.path: spec.shape for spec in graph.params}
    assert np.isfinite(embed([graph], ghn)).all()
    initialised = init_like(model, jax.random.key(0), images, ghn)
    np.testing.assert_array_equal(initialised["params"]["head"]["kernel"], params["head"]["kernel"])
    save_file(tmp_path / "ghn.npz", ghn.config, ghn.variables)
    table = predict_params.run(
        predict_params.Options(
            model="small_models:Small",
            input="8,8,3",
            out=tmp_path / "out",
            ghn=str(tmp_path / "ghn.npz"),
            arguments='{"classes": 10}',
        )
    )
    assert f"{float(jnp.linalg.norm(params['head']['kernel'])):.4g}" in table
    given = list(zip(tiny_batch().args, tiny_batch().graphs, strict=True))[:1]
    config = EvaluationConfig(images=32, batch_size=32, random_init="none")
    found = evaluate(ghn, load_images("digits", IMAGE_SIZE), config, architectures=given)
    assert 0 <= found.scores[0].top1 <= 1


@pytest.mark.parametrize("family", NEW)
def test_values_are_the_same_alone_padded_and_beside_others(family: str) -> None:
    ghn = pretrained(FAMILIES[family])
    graphs = [random_graph(0, 20), mixed_graph(classes=10), random_graph(1, 33), random_graph(2, 1)]

    def states(graphs: list, nodes: int) -> list[np.ndarray]:
        batch = batch_graphs(graphs, (nodes,), ghn.config.encoder.cutoff)
        return [np.asarray(part) for part in batch.unpad(embed_program(ghn.ghn)(ghn.variables, batch))]

    for graph, beside in zip(graphs, states(graphs, 48), strict=True):
        (alone,) = states([graph], graph.num_nodes + 1)
        (padded,) = states([graph], 64)
        scale = np.abs(alone).max()
        np.testing.assert_allclose(padded, alone, atol=1e-6 * scale, rtol=0)
        np.testing.assert_allclose(beside, alone, atol=1e-6 * scale, rtol=0)


def test_gradients_between_graphs_are_exactly_zero() -> None:
    variables = pretrained(GHN3).variables
    batch = batch_graphs([random_graph(0, 12), random_graph(1, 9)], (16,))
    options = GraphormerConfig(layers=2, heads=2)
    gnn, weights = Graphormer(options, GHN3.hid), {"params": variables["params"]["gnn"]}

    def first_graph(inputs: jax.Array) -> jax.Array:
        states = gnn.apply(weights, inputs, jnp.asarray(batch.distances), jnp.asarray(batch.node_mask))
        return jnp.square(jnp.asarray(states)[0, :12]).sum()

    gradient = jax.grad(first_graph)(jax.random.normal(jax.random.key(2), (2, 16, GHN3.hid)))
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[0, 12:] == 0).all())
    assert bool((gradient[0, :12] != 0).any(axis=-1).all())


def test_forty_architectures_make_one_trace_per_bucket() -> None:
    traces = []

    class CountingGHN(GHN):
        def embed(self, variables: object, batch: GraphBatch) -> jax.Array:
            traces.append(batch)
            return super().embed(variables, batch)

    ghn, variables = CountingGHN(GHN3), pretrained(GHN3).variables
    for seed in range(40):
        batch = batch_graphs([random_graph(seed, 5 + seed)], (16, 32, 64))
        embed_program(ghn)(variables, batch)
    assert len(traces) == 3


def test_products_in_bfloat16_stay_close_and_only_they_are() -> None:
    exact, graph = pretrained(GHN3), mixed_graph(classes=10)
    half = GHN(GHN3.replace(encoder=GraphormerConfig(layers=2, heads=2, product_dtype="bfloat16")))
    batch = batch_graphs([graph], (32,))
    found, expected = (np.asarray(embed_program(ghn)(exact.variables, batch)) for ghn in (half, exact.ghn))
    assert found.dtype == np.float32
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 3e-2
    text = jax.jit(half.embed).lower(exact.variables, batch).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    # Of each layer four linear layers, and the two products of attention, which may be one function for all layers.
    # The table of edges stays in float32.
    assert sum("bf16>, tensor" in line.split("->")[0] for line in products) in (10, 12)
    assert sum("xf32>, tensor" in line.split("->")[0] for line in products) == 2
    assert not [line for line in text.splitlines() if "exponential" in line and "bf16" in line]


def test_weights_start_as_in_the_release() -> None:
    config = GHN3.replace(hid=64, encoder=GraphormerConfig(layers=1, heads=2))
    params: Any = init_ghn(GHN(config), jax.random.key(0))["params"]
    gnn, decoder, vectors = params["gnn"], params["decoder"], params["decoder_1d"]
    tables = [gnn["edge_embed"], gnn["input_dist_embed"], gnn["centrality_embed_in"], params["encoder"]["embed"]]
    for table in tables:
        np.testing.assert_allclose(table.std(), 1 / 8, rtol=0.05)
        assert abs(float(table.mean())) < 0.01
    np.testing.assert_allclose(params["encoder"]["shape_enc"]["embed_channel"].std(), 1 / 4, rtol=0.05)
    for layer, inputs, factor in (
        (decoder["conv_2"], 512, 0.2),
        (decoder["class_layer_predictor"], 8, 0.2),
        (vectors["mlp"]["fc_2"], 128, 0.2),
        (decoder["fc"], 64, 1.0),
        (gnn["layer_0"]["ff_3"], 256, 1.0),
        (vectors["bias_class"], 8, 1.0),
    ):
        bound = 1 / math.sqrt(inputs)
        assert 0.9 * factor * bound < float(jnp.abs(layer["kernel"]).max()) <= factor * bound
        largest = float(jnp.abs(layer["bias"]).max())
        assert largest == 0 if factor < 1 else 0.5 * bound < largest <= bound
    assert "bias" not in gnn["layer_0"]["to_qkv"]


def count(config: GHNConfig) -> int:
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("name", "weights"),
    [("ghn3-t", 6_906_632), ("ghn3-s", 35_810_368), ("ghn3-l", 214_668_960), ("ghn3-xl", 654_365_184)],
)
def test_presets_have_the_published_sizes(name: PresetName, weights: int) -> None:
    assert count(GHNConfig.preset(name, "imagenet")) == weights


@pytest.mark.parametrize(
    ("rank", "hid", "layers", "heads", "weights"),
    [(32, 64, 3, 8, 2_540_380), (90, 128, 5, 16, 21_412_794), (128, 256, 5, 16, 78_231_892)],
)
def test_low_rank_decoders_have_the_published_sizes(rank: int, hid: int, layers: int, heads: int, weights: int) -> None:
    config = GHNConfig(
        max_shape=(2048, 2048, 16, 16),
        hid=hid,
        encoder=GraphormerConfig(layers=layers, heads=heads),
        decoder=LowRankDecoderConfig(rank=rank),
    )
    never_used = rank * rank + rank + 4  # one linear layer and two placeholders of one weight and one bias
    assert count(config) + never_used == weights


def test_position_tables_begin_with_the_same_random_token_and_end_where_the_square_does() -> None:
    ghn = GHN(GHN3)
    row = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 8, 8)), jnp.float32)

    def table(tokens: int) -> np.ndarray:
        spec = ParamSpec(("table",), (1, tokens, 12), "OHI", Role.POSITION, 0)
        return np.asarray(ghn.decoder.fit(row, spec))

    ten, nine = table(10), table(9)
    np.testing.assert_array_equal(ten[0, 1:, :8], row[..., 0].reshape(9, 8))
    np.testing.assert_array_equal(ten[0, 1:, 8:], row[..., :4, 0].reshape(9, 4))
    np.testing.assert_array_equal(nine, ten[:, :9])
    assert 0.005 < ten[0, 0].std() < 0.05
    with pytest.raises(ValueError, match=r"shape \(1, 11, 12\) has 11 tokens, but a square of 3 x 3 and one more"):
        table(11)


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (GraphormerConfig, {"layers": 0}, "layers must be between 1 and 128, got 0"),
        (GraphormerConfig, {"heads": 0}, "heads must be positive"),
        (GraphormerConfig, {"s_max": 251}, "s_max must be between 1 and 250"),
        (GraphormerConfig, {"product_dtype": "float16"}, "product_dtype must be .*bfloat16"),
        (LowRankDecoderConfig, {"rank": 0}, "rank and width must lie between 1 and"),
        (LowRankDecoderConfig, {"width": 1 << 21}, "rank and width must lie between 1 and"),
        (LowRankDecoderConfig, {"deviation": -1.0}, "deviation must not be negative"),
        (CentredDecoderConfig, {"token_seed": "0"}, "token_seed must be int"),
    ],
)
def test_bad_options_are_named(part: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part(**options)


def test_heads_must_divide_the_width() -> None:
    config = GHN3.replace(encoder=GraphormerConfig(heads=3))
    with pytest.raises(ValueError, match="heads must divide hid, got 3 heads and hid 8"):
        embed([mixed_graph(classes=10)], PretrainedGHN(GHN(config), {}))

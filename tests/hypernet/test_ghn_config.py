import json

import jax
import numpy as np
import pytest
from small_graphs import TINY

from ghn_jax.deepnets.predefined import resnet50_graph
from ghn_jax.graphs import ParamSpec, Role
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn
from ghn_jax.hypernet.decoders.fitting import normalisation_factor, slab_shape
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.decoders.mlp import MLPDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.encoders.node_features import channel_sizes, channel_table, spatial_sizes, spatial_table
from ghn_jax.hypernet.grouping import CHUNKS, chunk_sizes, prepare, whole_chunks


def test_presets() -> None:
    ghn2 = GHNConfig.preset("ghn2")
    assert ghn2 == GHNConfig()
    assert GHNConfig.preset("ghn2", "imagenet") == ghn2.replace(max_shape=(64, 64, 16, 16), num_classes=1000)
    ghn1 = GHNConfig.preset("ghn1")
    assert ghn1.normalization == "none"
    assert ghn1.encoder == GatedGNNConfig(virtual_edges=False, layernorm=False)
    assert GHNConfig.preset("mlp") == ghn2.replace(encoder=MLPEncoderConfig())
    with pytest.raises(ValueError, match="no preset 'ghn3'"):
        GHNConfig.preset("ghn3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="dataset 'mnist'"):
        GHNConfig.preset("ghn2", "mnist")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "change",
    [
        {"max_shape": (8, 8, 3)},
        {"max_shape": (8, 8, 3, 5)},
        {"hid": 10},
        {"num_classes": 0},
        {"normalization": "batch"},
        {"max_shape": (8, 8, 65, 65)},
        {"max_shape": (4097, 8, 3, 3)},
        {"max_shape": (8, 10**8, 3, 3)},
        {"max_shape": (8, 0, 3, 3)},
        {"max_shape": [8, 8, 3, 3]},
        {"hid": 4096},
        {"hid": 8.0},
        {"hid": True},
        {"num_classes": 65_537},
        {"num_classes": "10"},
        {"normalization": ["fan_in"]},
        {"encoder": "mlp"},
        {"decoder": None},
        {"encoder": MLPEncoderConfig(layernorm="no")},  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_values_are_named(change: dict) -> None:
    (field,) = change
    with pytest.raises(ValueError, match=f"GHN config: .*{field}"):
        TINY.replace(**change)


@pytest.mark.parametrize(
    "change", [{"rounds": 0}, {"rounds": 65}, {"rounds": True}, {"s_max": 251}, {"s_max": 0}, {"layernorm": "no"}]
)
def test_bad_values_of_the_encoder_are_named(change: dict) -> None:
    (field,) = change
    with pytest.raises(ValueError, match=f"GHN config: .*{field}"):
        GatedGNNConfig(**change)


CONFIGS = {
    "ghn2": GHNConfig(),
    "ghn1, imagenet": GHNConfig.preset("ghn1", "imagenet"),
    "mlp": GHNConfig.preset("mlp"),
    "ablation": GHNConfig(encoder=GatedGNNConfig(s_max=7, rounds=2, backward_sweep=False), decoder=MLPDecoderConfig()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_json_gives_the_configuration_back(name: str) -> None:
    config = CONFIGS[name]
    assert GHNConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def changed(path: str, value: object) -> dict:
    """GHN-2's JSON with one value changed; ... removes it."""
    data = GHNConfig().to_json()
    *parents, last = path.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("hid", "32", "hid must be int, got '32'"),
        ("hid", 32.0, "hid must be int, got 32.0"),
        ("hid", True, "hid must be int, got True"),
        ("hid", ..., "lacks hid"),
        ("hidden", 1, "unknown hidden"),
        ("max_shape", [1, 1, 3], "max_shape must be"),
        ("max_shape", [1, 1, 3, 3.0], "max_shape must be int, got 3.0"),
        ("max_shape", "1133", "max_shape must be"),
        ("normalization", "batch", "normalization must be"),
        ("num_classes", 0, "num_classes must be between 1 and 65536"),
        ("encoder", "mlp", "encoder must be an object whose kind is one of gatedgnn, graphormer, mlp"),
        ("encoder.kind", "transformer", "encoder must be an object whose kind is one of gatedgnn, graphormer, mlp"),
        ("encoder.kind", "mlp", "encoder has the unknown backward_sweep, rounds, s_max, virtual_edges"),
        ("encoder.rounds", ..., "encoder lacks rounds"),
        ("encoder.virtual_edges", 1, "encoder: virtual_edges must be bool, got 1"),
        ("encoder.s_max", 251, "s_max must be between"),
        ("encoder.rounds", 10**9, "rounds must be between 1 and 64"),
        ("encoder.kind", ["mlp"], "encoder must be an object whose kind"),
        ("hid", "x" * 10**6, "hid must be int, got 'xxx.{,60}$"),
        ("decoder.width", 3, "decoder has the unknown width"),
        ("decoder", None, "decoder must be an object"),
    ],
)
def test_bad_json_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"GHN config.* {message}"):
        GHNConfig.from_json(changed(path, value))


def test_no_object_is_no_configuration() -> None:
    with pytest.raises(ValueError, match=r"GHN config must be an object, got \[\]"):
        GHNConfig.from_json([])


FLAT = {
    "max_shape": [64, 64, 16, 16],
    "num_classes": 1000,
    "hid": 32,
    "hypernet": "gatedgnn",
    "decoder": "conv",
    "virtual_edges": False,
    "s_max": 50,
    "normalization": "none",
    "layernorm": False,
    "backward_sweep": True,
    "rounds": 1,
    "shape_encoding": True,
}


def test_flat_configurations_of_version_0_1_are_read() -> None:
    assert GHNConfig.from_json(FLAT) == GHNConfig.preset("ghn1", "imagenet")
    flat = {**FLAT, "hypernet": "mlp", "layernorm": True, "normalization": "fan_in"}
    assert GHNConfig.from_json(flat) == GHNConfig.preset("mlp", "imagenet")
    assert GHNConfig.from_json({**FLAT, "decoder": "mlp"}).decoder == MLPDecoderConfig()
    with pytest.raises(ValueError, match="encoder lacks rounds"):
        GHNConfig.from_json({name: value for name, value in FLAT.items() if name != "rounds"})
    with pytest.raises(ValueError, match="kind is one of gatedgnn, graphormer, mlp"):
        GHNConfig.from_json({**FLAT, "hypernet": "transformer"})


def test_shape_tables() -> None:
    channels, sizes = channel_table(10), channel_sizes(10)
    assert len(sizes) == 391
    for size, counts_as in ((1, 1), (2, 1), (3, 3), (4, 8), (7, 8), (8, 8), (9, 8), (10, 10), (11, 10), (60, 56)):
        assert sizes[channels[size]] == counts_as, size
    assert sizes[channels[4100]] == 4096
    assert channels[0] == len(sizes)
    spatial, sizes = spatial_table(11), spatial_sizes(11)
    assert sizes == (1, 3, 5, 7, 9, 11, 14, 16)
    for size, counts_as in ((1, 1), (2, 3), (4, 3), (12, 11), (13, 14), (15, 14)):
        assert sizes[spatial[size]] == counts_as, size
    assert spatial_sizes(16) == (1, 3, 5, 7, 9, 11, 13, 14, 15, 16)


@pytest.mark.parametrize(
    ("out_in", "expected"),
    [((3, 3), (4, 4)), ((12, 1), (16, 1)), ((24, 32), (64, 64)), ((31, 30), (31, 64)), ((500, 90), (64, 64))],
)
def test_grouping_keys(out_in: tuple[int, int], expected: tuple[int, int]) -> None:
    spec = ParamSpec((), (5, 3, out_in[1], out_in[0]), "HWIO", Role.KERNEL, 0)
    assert slab_shape(GHNConfig(), spec) == (5, 3, expected[1], expected[0])


def test_normalisation() -> None:
    def factor(shape: tuple[int, ...], axes: str, role: Role = Role.KERNEL, **change: object) -> float:
        return normalisation_factor(GHNConfig().replace(**change), ParamSpec((), shape, axes, role, 0))

    assert factor((3, 3, 8, 4), "HWIO") == pytest.approx((2 / 72) ** 0.5)
    assert factor((3, 3, 1, 4), "HWIO") == pytest.approx((1 / 9) ** 0.5)
    assert factor((1, 7, 8, 4), "HWIO") == pytest.approx((1 / 56) ** 0.5)
    assert factor((7, 1, 8, 4), "HWIO") == pytest.approx((2 / 56) ** 0.5)
    assert factor((1, 4), "IO") == pytest.approx(2**0.5)
    assert factor((3, 3, 8, 4), "HWIO", normalization="fan_out") == pytest.approx((2 / 36) ** 0.5)
    assert factor((3, 3, 8, 4), "HWIO", normalization="none") == 1
    assert factor((1, 11, 11, 8), "OHWI", Role.POSITION) == 1
    assert factor((1, 7, 7, 8), "OHWI", Role.POSITION) == pytest.approx((2 / (8 * 49)) ** 0.5)


def test_chunks_are_padded_by_at_most_a_third() -> None:
    for count in range(1, 400):
        chunks = chunk_sizes(count, CHUNKS)
        assert set(chunks) <= set(CHUNKS)
        assert sum(chunks) >= count > sum(chunks[:-1])
        assert sum(chunks) - count <= sum(chunks) / 4
    assert chunk_sizes(3, (256,)) == [256]
    assert [whole_chunks(count) for count in (1, 21, 64, 150)] == [[1], [21], [64], [64, 64, 22]]


def test_decoders_with_many_weights_are_called_once_a_group() -> None:
    graph = resnet50_graph(1000, 224)
    keys = {
        name: [chunk.key for chunk in prepare(GHNConfig.preset(name, "imagenet"), [graph]).chunks]
        for name in ("ghn3-s", "ghn3-xl")
    }
    assert len(keys["ghn3-xl"]) == len(set(keys["ghn3-xl"]))
    assert len(keys["ghn3-s"]) > len(set(keys["ghn3-s"]))
    low_rank = LowRankDecoderConfig(rank=4)
    assert GHNConfig.preset("ghn3-xl").replace(decoder=low_rank).decoder.weights_read(GHNConfig()) == 0


def test_initialisation_is_pytorchs() -> None:
    variables = init_ghn(GHN(GHNConfig()), jax.random.key(0))["params"]
    for path, fan_in in ((("decoder", "fc"), 32), (("decoder", "conv_2"), 256), (("decoder_1d", "bias_class"), 64)):
        for leaf in variables[path[0]][path[1]].values():
            bound = fan_in**-0.5
            assert 0.8 * bound < float(np.abs(leaf).max()) <= bound
            assert float(np.std(leaf)) == pytest.approx(bound / 3**0.5, rel=0.3)
    assert float(np.std(variables["encoder"]["shape_enc"]["embed_channel"])) == pytest.approx(1, rel=0.1)
    assert float(np.abs(variables["gnn"]["gru"]["hidden_bias"]).max()) <= 32**-0.5

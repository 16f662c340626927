import jax
import numpy as np
import pytest
from small_graphs import TINY

from ghn_jax.graphs import Role
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn
from ghn_jax.hypernet.decoders.fitting import TensorKind, normalisation_factor, slab_shape
from ghn_jax.hypernet.encoders.node_features import channel_sizes, channel_table, spatial_sizes, spatial_table
from ghn_jax.hypernet.grouping import KERNEL_CHUNKS, chunk_sizes


def test_presets() -> None:
    ghn2 = GHNConfig.preset("ghn2")
    assert ghn2 == GHNConfig()
    assert GHNConfig.preset("ghn2", "imagenet") == ghn2.replace(max_shape=(64, 64, 16, 16), num_classes=1000)
    ghn1 = GHNConfig.preset("ghn1")
    assert (ghn1.virtual_edges, ghn1.normalization, ghn1.layernorm) == (False, "none", False)
    assert GHNConfig.preset("mlp").hypernet == "mlp"
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
        {"rounds": 0},
        {"s_max": 251},
        {"hypernet": "transformer"},
        {"decoder": "linear"},
        {"normalization": "batch"},
    ],
)
def test_bad_values_are_named(change: dict) -> None:
    (field,) = change
    with pytest.raises(ValueError, match=f"GHN config: .*{field}"):
        TINY.replace(**change)


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
    kind = TensorKind(Role.KERNEL, (5, 3, out_in[1], out_in[0]), "HWIO")
    assert slab_shape(GHNConfig(), kind) == (5, 3, expected[1], expected[0])


def test_normalisation() -> None:
    def factor(shape: tuple[int, ...], axes: str, role: Role = Role.KERNEL, **change: object) -> float:
        return normalisation_factor(GHNConfig().replace(**change), TensorKind(role, shape, axes))

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
        chunks = chunk_sizes(count, KERNEL_CHUNKS)
        assert set(chunks) <= set(KERNEL_CHUNKS)
        assert sum(chunks) >= count > sum(chunks[:-1])
        assert sum(chunks) - count <= sum(chunks) / 4
    assert chunk_sizes(3, (256,)) == [256]


def test_initialisation_is_pytorchs() -> None:
    variables = init_ghn(GHN(GHNConfig()), jax.random.key(0))["params"]
    for path, fan_in in ((("decoder", "fc"), 32), (("decoder", "conv_2"), 256), (("decoder_1d", "bias_class"), 64)):
        for leaf in variables[path[0]][path[1]].values():
            bound = fan_in**-0.5
            assert 0.8 * bound < float(np.abs(leaf).max()) <= bound
            assert float(np.std(leaf)) == pytest.approx(bound / 3**0.5, rel=0.3)
    assert float(np.std(variables["encoder"]["shape_enc"]["embed_channel"])) == pytest.approx(1, rel=0.1)
    assert float(np.abs(variables["gnn"]["gru"]["hidden_bias"]).max()) <= 32**-0.5

"""Files of GHN-3 and LoGAH: nothing that they name is run; names and shapes say the configuration, or are refused."""

import collections
import os
import pathlib
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from joblib_files import STORAGE, storage_stream, write_joblib

from ghn_jax.hypernet import GHN, GHNConfig, export_release_checkpoint, init_ghn, load_ghn
from ghn_jax.hypernet.checkpoints.release_names import params_to_release
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig

GHN3 = GHNConfig(
    max_shape=(4, 4, 11, 11),
    num_classes=3,
    hid=8,
    encoder=GraphormerConfig(layers=2, heads=8),
    decoder=CentredDecoderConfig(),
)
GHN2 = GHNConfig(max_shape=(4, 4, 16, 16), num_classes=3, hid=8)
WIDE = GHN3.replace(hid=80, encoder=GraphormerConfig(layers=1, heads=16, layernorm=False))
TABLES = ("centrality_embed_in", "centrality_embed_out", "input_dist_embed")


def variables_of(config: GHNConfig) -> Any:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def published(config: GHNConfig) -> dict[str, np.ndarray]:
    """Tensors as published files have them: tables at the top, matrices where a GHN-2 has pointwise convolutions."""
    state = {}
    for name, array in params_to_release(config, variables_of(config)).items():
        top = name.removeprefix("gnn.0.") if name.split(".")[-2] in TABLES else name
        state[top] = np.ascontiguousarray(array[:, :, 0, 0] if array.ndim == 4 else array)
    return state


@pytest.mark.parametrize("config", [GHN3, GHN2, WIDE])
def test_configuration_is_told_from_names_and_shapes(config: GHNConfig, tmp_path: pathlib.Path) -> None:
    write_joblib(tmp_path / "ghn.pt", published(config))
    loaded = load_ghn(tmp_path / "ghn.pt")
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables_of(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.conv.2.weight": (15, 64)}, "decoder.conv.2.weight has 15 rows, which is no square"),
        ({"shape_enc.embed_spatial.weight": (10, 2)}, "embed_spatial.weight has 10 rows, expected 9 or 11"),
        ({"decoder.class_layer_predictor.1.weight": None}, "class_layer_predictor.1.weight is missing or no matrix"),
        ({"embed.weight": (15,)}, "embed.weight is missing or no matrix"),
        ({"gnn.1.ln2.bias": None}, r"tensors are missing: gnn.1.ln2.bias"),
        ({"gnn.1.ln2.bias": (9,)}, r"tensor gnn.1.ln2.bias is float32 \(9,\), its config asks for float32 \(8,\)"),
        ({"other.weight": (2, 2)}, "tensors that its config does not ask for: other.weight"),
        (dict.fromkeys(("gnn.0.ln1.weight", "gnn.1.ln1.weight")), "neither gnn.gru nor gnn.0.ln1"),
    ],
)
def test_other_tensors_are_refused_by_name(change: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    state = published(GHN3)
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = np.zeros(shape, np.float32)
    write_joblib(tmp_path / "ghn.pt", state)
    with pytest.raises(ValueError, match=message) as caught:
        load_ghn(tmp_path / "ghn.pt")
    assert str(tmp_path / "ghn.pt") in str(caught.value)


def test_the_low_rank_decoder_goes_through_a_file_of_the_release(tmp_path: pathlib.Path) -> None:
    for decoder in (
        LowRankDecoderConfig(rank=3, width=64),
        LowRankDecoderConfig(rank=2, width=64, vector_decoder=True),
    ):
        config = GHN3.replace(decoder=decoder)
        variables = variables_of(config)
        export_release_checkpoint(tmp_path / "ghn.pt", config, variables)
        loaded = load_ghn(tmp_path / "ghn.pt")
        assert loaded.config == config
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


def test_what_no_release_can_say_is_not_exported(tmp_path: pathlib.Path) -> None:
    for config, message in (
        (GHN2.replace(decoder=CentredDecoderConfig()), "the release has no 'gatedgnn' with a 'centred_conv' decoder"),
        (
            GHN3.replace(encoder=GraphormerConfig(layers=2, heads=8, product_dtype="bfloat16")),
            "cannot say product_dtype='bfloat16'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            export_release_checkpoint(tmp_path / "ghn.pt", config, variables_of(config))


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def test_hostile_files_run_nothing(tmp_path: pathlib.Path) -> None:
    file, mark = tmp_path / "ghn.pt", tmp_path / "mark"
    numbers = np.arange(6, dtype=np.float32)
    hostile = _Runs(os.mkdir, str(mark))
    inner = storage_stream(numbers, system={"little_endian": hostile})
    wrong = {
        "not allowed": inner,
        "a storage of 7 numbers has 24 bytes": storage_stream(numbers, count=7),
        "another number of storages": storage_stream(numbers, keys=["1", "2"]),
        "little-endian": storage_stream(numbers, system={"little_endian": False}),
        "unknown kind of stored object": storage_stream(numbers, declared=("module", STORAGE, "1", "cpu", 6, None)),
        "does not begin as one": storage_stream(numbers).replace(
            bytes.fromhex("8a0a6cfc9c46"), bytes.fromhex("8a0a6cfc9c47")
        ),
        "reaches beyond its storage": storage_stream(numbers[:4]),
    }
    for message, stream in wrong.items():
        write_joblib(file, {"embed.weight": numbers}, {"embed.weight": stream})
        with pytest.raises(ValueError, match=f"{file}: refused: .*{message}"):
            load_ghn(file)
    for value in (hostile, collections.OrderedDict({"embed.weight": hostile})):
        file.write_bytes(pickle.dumps(value, 4))
        with pytest.raises(ValueError, match=f"{file}: refused: the file names posix.mkdir"):
            load_ghn(file)
    file.write_bytes(pickle.dumps({"embed.weight": 3}, 4))
    with pytest.raises(ValueError, match=r"'embed.weight' is no tensor"):
        load_ghn(file)
    file.write_bytes(pickle.dumps({}, 4) + b"more")
    with pytest.raises(ValueError, match="4 bytes follow its end"):
        load_ghn(file)
    assert not mark.exists()

import collections
import json
import pathlib
import pickle
import shutil
import struct
import zipfile
from typing import Any

import jax
import numpy as np
import pytest
from small_graphs import TINY, mixed_graph

from ghn_jax.hypernet import (
    GHN,
    GHNConfig,
    PretrainedGHN,
    export_release_checkpoint,
    init_ghn,
    load_ghn,
    predict_params,
    save_checkpoint,
    save_file,
)
from ghn_jax.hypernet.checkpoints.own import read_checkpoint
from ghn_jax.hypernet.checkpoints.release_names import config_to_release, params_from_release, params_to_release
from ghn_jax.hypernet.checkpoints.release_reader import read_torch_zip
from ghn_jax.hypernet.checkpoints.release_writer import write_torch_zip
from ghn_jax.hypernet.decoders.mlp import MLPDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig

CONFIGS = {
    "ghn2": TINY,
    "ghn1": TINY.replace(normalization="none", encoder=GatedGNNConfig(virtual_edges=False, layernorm=False)),
    "mlp": TINY.replace(encoder=MLPEncoderConfig()),
    "mlp decoder": TINY.replace(decoder=MLPDecoderConfig()),
}


def variables_of(config: GHNConfig) -> dict:
    """Distinct numbers everywhere, without compiling an initialisation."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    return jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_same(loaded: PretrainedGHN, config: GHNConfig, variables: dict) -> None:
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_format_gives_the_same_weights_back(name: str, tmp_path: pathlib.Path) -> None:
    config = CONFIGS[name]
    variables = variables_of(config)
    save_checkpoint(tmp_path / "folder", config, variables)
    save_checkpoint(tmp_path / "folder", config, variables)  # replaces
    save_file(tmp_path / "file.npz", config, variables)
    export_release_checkpoint(tmp_path / "release.pt", config, variables, epoch=3)
    for source in ("folder", "file.npz", "release.pt"):
        assert_same(load_ghn(tmp_path / source), config, variables)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.npz", "folder", "release.pt"]
    assert read_torch_zip(tmp_path / "release.pt")["epoch"] == 3


def test_a_checkpoint_whose_replacement_was_killed_is_the_old_one(tmp_path: pathlib.Path) -> None:
    """Where the system cannot swap folders, a kill between two renamings leaves the old one under a hidden name."""
    variables = variables_of(TINY)
    for load in (load_ghn, read_checkpoint):
        save_checkpoint(tmp_path / "folder", TINY, variables)
        (tmp_path / "folder").rename(tmp_path / ".folder.ghn_jax-replaced")
        assert_same(load(tmp_path / "folder"), TINY, variables)
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_loaded_weights_predict(tmp_path: pathlib.Path) -> None:
    variables = variables_of(TINY)
    save_file(tmp_path / "ghn.npz", TINY, variables)
    loaded = load_ghn(tmp_path / "ghn.npz")
    (params,) = predict_params(loaded.ghn, loaded.variables, [mixed_graph()])
    assert all(np.isfinite(value).all() for value in params.values())


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("normalization='fan_out'", {"normalization": "fan_out"}),
        ("rounds=2", {"encoder": GatedGNNConfig(rounds=2)}),
        ("s_max=7", {"encoder": GatedGNNConfig(s_max=7)}),
        ("backward_sweep=False", {"encoder": GatedGNNConfig(backward_sweep=False)}),
        ("shape_encoding=False", {"encoder": MLPEncoderConfig(shape_encoding=False)}),
    ],
)
def test_export_refuses_what_the_format_cannot_say(field: str, change: dict, tmp_path: pathlib.Path) -> None:
    config = TINY.replace(**change)
    with pytest.raises(ValueError, match=f"cannot say {field}"):
        export_release_checkpoint(tmp_path / "x.pt", config, variables_of(config))
    assert not list(tmp_path.iterdir())


def test_wrong_tensors_are_named() -> None:
    state = params_to_release(TINY, variables_of(TINY))
    with pytest.raises(ValueError, match=r"some.pt: tensors are missing: gnn.gru.bias_hh"):
        params_from_release(TINY, {k: v for k, v in state.items() if k != "gnn.gru.bias_hh"}, "some.pt")
    with pytest.raises(ValueError, match=r"some.pt: tensors that its config does not ask for: extra.weight"):
        params_from_release(TINY, {**state, "extra.weight": np.zeros(1, np.float32)}, "some.pt")
    with pytest.raises(ValueError, match=r"some.pt: tensor ln.bias is float32 \(9,\).*float32 \(8,\)"):
        params_from_release(TINY, {**state, "ln.bias": np.zeros(9, np.float32)}, "some.pt")
    with pytest.raises(ValueError, match=r"tensor ln.bias is float64"):
        params_from_release(TINY, {**state, "ln.bias": np.zeros(8)}, "some.pt")
    with pytest.raises(ValueError, match=r"lack ln/scale"):
        params_to_release(TINY, {"params": {}})


def release_file(path: pathlib.Path, pickled: bytes, **entries: bytes) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name}", data)
    return path


class Evil:
    def __init__(self, function: object, *args: object) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple:
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 4])
def test_names_of_other_functions_are_refused_and_nothing_runs(protocol: int, tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "executed"
    for function, args, name in (
        (pathlib.Path.touch, (mark,), "touch|getattr"),
        (exec, (f"open({str(mark)!r}, 'w')",), "exec"),
        (getattr, (collections.OrderedDict, "fromkeys"), "getattr"),
    ):
        file = release_file(tmp_path / "evil.pt", pickle.dumps({"state_dict": Evil(function, *args)}, protocol))
        with pytest.raises(ValueError, match=rf"evil.pt: refused: the file names .*({name}).*not allowed"):
            load_ghn(file)
    assert not mark.exists()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(size: tuple, stride: tuple, offset: int = 0, count: int = 4, key: str = "0") -> bytes:
    """Instructions that push a tensor with chosen numbers."""

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    arguments = storage + number(offset) + numbers(size) + numbers(stride) + b"\x89Nt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"R"


def tensor_pickle(**kwargs: Any) -> bytes:
    """{"t": a tensor} with chosen numbers, written by hand."""
    return b"\x80\x02}" + text("t") + tensor(**kwargs) + b"s."


def test_tensors_are_rebuilt_with_strides_and_checked(tmp_path: pathlib.Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes()

    def read(**kwargs: Any) -> np.ndarray:
        file = release_file(tmp_path / "t.pt", tensor_pickle(**kwargs), **{"0": data})
        return read_torch_zip(file)["t"]

    np.testing.assert_array_equal(read(size=(2, 2), stride=(1, 2)), [[0, 2], [1, 3]])
    np.testing.assert_array_equal(read(size=(2,), stride=(1,), offset=2), [2, 3])
    for kwargs, message in (
        ({"size": (5,), "stride": (1,)}, "reaches beyond its storage"),
        ({"size": (2,), "stride": (1,), "offset": 3}, "reaches beyond its storage"),
        ({"size": (2,), "stride": (-1,)}, "impossible"),
        ({"size": (10**6,), "stride": (0,)}, "larger than its storage"),
        ({"size": (2,), "stride": (1,), "count": 9}, "storage 0 has 16 bytes instead of 36"),
        ({"size": (2,), "stride": (1,), "count": 3}, "data/0' has 16 bytes, at most 12 are expected"),
        ({"size": (2,), "stride": (2**50,)}, "impossible"),
        ({"size": (1,) * 9, "stride": (1,) * 9}, "impossible"),
        ({"size": (2, 2), "stride": (1,)}, "impossible"),
        ({"size": (2,), "stride": (1,), "key": "../x"}, "unknown kind of stored object"),
        ({"size": (2,), "stride": (1,), "key": "7"}, "archive/data/7"),
    ):
        with pytest.raises(ValueError, match=rf"t\.pt: .*{message}"):
            read(**kwargs)


def test_damaged_files_are_named(tmp_path: pathlib.Path) -> None:
    write_torch_zip(tmp_path / "good.pt", {"a": np.zeros(1000, np.float32)}, {"note": [1.5, None, True, {"k": (1,)}]})
    data = (tmp_path / "good.pt").read_bytes()
    assert read_torch_zip(tmp_path / "good.pt")["note"] == [1.5, None, True, {"k": (1,)}]
    (tmp_path / "short.pt").write_bytes(data[:2000])
    with pytest.raises(ValueError, match=r"short.pt: not a complete zip file"):
        load_ghn(tmp_path / "short.pt")
    (tmp_path / "text.pt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"text.pt: not a complete zip file"):
        load_ghn(tmp_path / "text.pt")
    with pytest.raises(ValueError, match=r"cut.pt: refused: damaged"):
        load_ghn(release_file(tmp_path / "cut.pt", pickle.dumps({"a": 1}, 2)[:-3]))
    with zipfile.ZipFile(tmp_path / "empty.pt", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ValueError, match=r"empty.pt: no checkpoint of the release"):
        load_ghn(tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"good.pt: no checkpoint of the release: state_dict or config is missing"):
        load_ghn(tmp_path / "good.pt")
    write_torch_zip(tmp_path / "bare.pt", {}, {"config": {"hid": 8}})
    with pytest.raises(ValueError, match=r"bare.pt: the checkpoint's config lacks max_shape"):
        load_ghn(tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="cannot hold"):
        write_torch_zip(tmp_path / "bad.pt", {}, {"config": {1, 2}})
    assert not (tmp_path / "bad.pt").exists()


def test_our_formats_check_configuration_against_weights(tmp_path: pathlib.Path) -> None:
    wrong = TINY.replace(hid=16)
    save_checkpoint(tmp_path / "folder", wrong, variables_of(TINY))
    save_file(tmp_path / "file.npz", wrong, variables_of(TINY))
    for name in ("folder", "file.npz"):
        with pytest.raises(
            ValueError, match=rf"{name}: its configuration does not match its weights: params/.*float32"
        ):
            load_ghn(tmp_path / name)
    config = tmp_path / "folder" / "config.json"
    save_checkpoint(tmp_path / "folder", TINY, variables_of(TINY))
    shutil.rmtree(tmp_path / "folder" / "weights" / "d", ignore_errors=True)
    (tmp_path / "folder" / "weights" / "_METADATA").unlink()
    with pytest.raises(ValueError, match=r"folder: the weights cannot be read"):
        load_ghn(tmp_path / "folder")
    config.write_text("{}")
    with pytest.raises(ValueError, match=r"config.json: no configuration"):
        load_ghn(tmp_path / "folder")
    config.write_text('{"format": "other"}')
    with pytest.raises(ValueError, match=r"written in the format 'other'"):
        load_ghn(tmp_path / "folder")
    config.unlink()
    with pytest.raises(ValueError, match=r"folder: no checkpoint of a hypernetwork"):
        load_ghn(tmp_path / "folder")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"other.npz: not a hypernetwork in one file: config.json is missing"):
        load_ghn(tmp_path / "other.npz")


def rewritten(path: pathlib.Path, into: pathlib.Path, **arrays: np.ndarray) -> pathlib.Path:
    """A .npz with other arrays under some names ("__" for slashes)."""
    with np.load(path) as archive:
        old = {name: archive[name] for name in archive.files}
    np.savez(into, allow_pickle=False, **{**old, **{name.replace("__", "/"): array for name, array in arrays.items()}})
    return into


def test_weights_are_compared_with_their_digests(tmp_path: pathlib.Path) -> None:
    variables = variables_of(TINY)
    save_file(tmp_path / "good.npz", TINY, variables)
    bias = np.array(variables["params"]["ln"]["bias"])
    assert_same(
        load_ghn(rewritten(tmp_path / "good.npz", tmp_path / "same.npz", params__ln__bias=bias)), TINY, variables
    )
    bias[3] += 1e-6
    with pytest.raises(ValueError, match=r"other.npz: params/ln/bias is damaged"):
        load_ghn(rewritten(tmp_path / "good.npz", tmp_path / "other.npz", params__ln__bias=bias))
    for dtype in (np.int32, np.bool_, np.complex64, np.float64, np.float16):
        with pytest.raises(
            ValueError, match=rf"typed.npz: .*params/ln/bias is {np.dtype(dtype).name} .*float32 \(8,\)|.*bytes"
        ):
            load_ghn(rewritten(tmp_path / "good.npz", tmp_path / "typed.npz", params__ln__bias=bias.astype(dtype)))
    changed = variables_of(TINY)
    changed["params"]["ln"]["bias"] = bias
    save_checkpoint(tmp_path / "folder", TINY, variables)
    save_checkpoint(tmp_path / "changed", TINY, changed)
    shutil.rmtree(tmp_path / "folder" / "weights")
    shutil.copytree(tmp_path / "changed" / "weights", tmp_path / "folder" / "weights")
    with pytest.raises(ValueError, match=r"folder: params/ln/bias is damaged"):
        load_ghn(tmp_path / "folder")


def test_a_folder_with_weights_of_another_type_is_refused(tmp_path: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    variables = variables_of(TINY)
    save_checkpoint(tmp_path / "folder", TINY, variables)
    shutil.rmtree(tmp_path / "folder" / "weights")
    variables["params"]["ln"]["bias"] = variables["params"]["ln"]["bias"].astype(np.int32)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "folder" / "weights", variables)
    with pytest.raises(ValueError, match=r"folder: .*params/ln/bias is int32 \(8,\), expected float32"):
        load_ghn(tmp_path / "folder")


def without_digests(text: str, **changes: object) -> str:
    data = json.loads(text)
    kept = {"format": "ghn_jax hypernetwork 2", "config": data["config"]}
    return json.dumps({**kept, **changes})


def test_checkpoints_of_earlier_versions_are_read_and_the_log_says_so(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = variables_of(TINY)
    save_checkpoint(tmp_path / "folder", TINY, variables)
    save_file(tmp_path / "file.npz", TINY, variables)
    config = tmp_path / "folder" / "config.json"
    new = config.read_text()
    config.write_text(without_digests(new))
    file = rewritten(tmp_path / "file.npz", tmp_path / "old.npz", **{"config.json": np.array(without_digests(new))})
    caplog.set_level("INFO", "ghn_jax")
    for source in (tmp_path / "folder", file):
        caplog.clear()
        assert_same(load_ghn(source), TINY, variables)
        assert "written without digests" in caplog.text
    for text, message in (
        (new.replace("hypernetwork 3", "hypernetwork 2"), "entries must be config, format, got"),
        (without_digests(new, format="ghn_jax hypernetwork 3"), "entries must be config, config_digest"),
        (new.replace('"hid": 8', '"hid": 12'), "the configuration is damaged"),
        (new.replace('"digests": {', '"digests": {"a": 1}, "more": {'), "entries must be"),
        (new.replace("{", '{"format": 1,', 1), "one name twice"),
        ("[" * 100_000, "no configuration of a hypernetwork: RecursionError"),
        ('{"format": ' + "1" * 5_000 + "}", "no configuration of a hypernetwork: ValueError"),
        ("[]", "no configuration"),
    ):
        config.write_text(text)
        with pytest.raises(ValueError, match=rf"config.json: .*{message}"):
            load_ghn(tmp_path / "folder")


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused_unless_allowed(bad: float, tmp_path: pathlib.Path) -> None:
    variables = variables_of(TINY)
    variables["params"]["ln"]["bias"][2] = bad
    save_checkpoint(tmp_path / "folder", TINY, variables)
    save_file(tmp_path / "file.npz", TINY, variables)
    export_release_checkpoint(tmp_path / "release.pt", TINY, variables)
    for source in ("folder", "file.npz", "release.pt"):
        with pytest.raises(ValueError, match=rf"{source}: .*ln.bias holds NaN or infinity.*allow_nonfinite=True"):
            load_ghn(tmp_path / source)
        assert_same(load_ghn(tmp_path / source, allow_nonfinite=True), TINY, variables)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight_norm", "no"),
        ("layernorm", 1),
        ("ve", None),
        ("hid", True),
        ("hid", 10**8),
        ("hid", 8.0),
        ("num_classes", 10**8),
        ("num_classes", "10"),
        ("max_shape", (8, 8, 10**8, 10**8)),
        ("max_shape", (8, 8, 3)),
        ("max_shape", (8, 8, 3, "3")),
        ("max_shape", "8833"),
        ("hypernet", 5),
        ("hypernet", "transformer"),
        ("decoder", ["conv"]),
    ],
)
def test_every_entry_of_a_releases_config_is_checked(key: str, value: object, tmp_path: pathlib.Path) -> None:
    config = {**config_to_release(TINY), key: value}
    write_torch_zip(tmp_path / "x.pt", params_to_release(TINY, variables_of(TINY)), {"config": config})
    with pytest.raises(ValueError, match=rf"x.pt: .*{key}"):
        load_ghn(tmp_path / "x.pt")

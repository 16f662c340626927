"""The command line that predicts a model's parameters into a checkpoint."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import predict_params
import pytest

from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, save_file


@pytest.fixture(scope="module")
def ghn(tmp_path_factory: pytest.TempPathFactory) -> str:
    module = GHN(GHNConfig(max_shape=(8, 8, 5, 5), num_classes=5, hid=8))
    path = tmp_path_factory.mktemp("ghn") / "small.npz"
    save_file(path, module.config, init_ghn(module, jax.random.key(1)))
    return str(path)


def options(name: str, out: pathlib.Path, ghn: str, **changes: Any) -> predict_params.Options:
    given: dict[str, Any] = {"model": f"small_models:{name}", "input": "8,8,3", "out": out, "ghn": ghn, **changes}
    return predict_params.Options(**given)


@pytest.mark.parametrize(("name", "classes"), [("Small", 5), ("INSTANCE", 5), ("Small", 7)])
def test_table_and_checkpoint(name: str, classes: int, ghn: str, tmp_path: pathlib.Path):
    arguments = "{}" if name == "INSTANCE" else f'{{"classes": {classes}}}'
    table = predict_params.run(options(name, tmp_path / "out", ghn, arguments=arguments))
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path / "out")
    assert {"params", "batch_stats"} == set(saved)
    kernel = saved["params"]["conv"]["kernel"]
    rows = {line.split("  ")[0]: line for line in table.splitlines()}
    assert f"{float(jnp.linalg.norm(kernel.ravel())):.4g}" in rows["conv/kernel"]
    assert "predicted" in rows["conv/kernel"]
    assert "3x3x3x8" in rows["conv/kernel"]
    assert "kept: multiplies data" in rows["gamma"]
    np.testing.assert_array_equal(saved["params"]["gamma"], np.full((1, 1, 1, 8), 0.5, np.float32))
    assert ("predicted" in rows["head/kernel"]) == (classes == 5)
    assert rows[next(iter(reversed(rows)))].endswith("weights predicted")


def test_nnx_model(ghn: str, tmp_path: pathlib.Path):
    table = predict_params.run(options("SmallNnx", tmp_path / "out", ghn))
    assert "head/kernel  192x5  predicted" in table
    assert "drop" not in table


def test_layout_is_needed_for_an_ambiguous_shape_and_passed_on(ghn: str, tmp_path: pathlib.Path):
    given = options("Small", tmp_path / "out", ghn, input="4,4,64")
    with pytest.raises(ValueError, match="layout='CHW' or layout='HWC'"):
        predict_params.run(given)
    table = predict_params.run(dataclasses.replace(given, layout="HWC"))
    assert "conv/kernel  3x3x64x8  predicted" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "flax.linen.Dense"}, "must be MODULE:NAME"),
        ({"model": "no_such_module:Net"}, "cannot be loaded: ModuleNotFoundError: No module named"),
        ({"model": "flax.linen:NoSuchNet"}, "cannot be loaded: .*NoSuchNet"),
        ({"input": "8,8"}, "three positive sizes"),
        ({"input": "8,x,3"}, "three positive sizes"),
        ({"out": pathlib.Path()}, "exists already"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str, tmp_path: pathlib.Path):
    given: dict[str, Any] = {
        "model": "flax.linen:Dense",
        "input": "8,8,3",
        "out": tmp_path / "out",
        "ghn": "none",
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        predict_params.run(predict_params.Options(**given))

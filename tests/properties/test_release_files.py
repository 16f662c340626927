"""Result files of the release: made ones, and those at hand."""

import json
import math
import pathlib
from typing import Any

import pytest
from parity_data import PARITY

from ghn_jax.properties import published_table, published_taus, read_released

RESULTS = PARITY.parent / "data" / "release_results"


def row(clean: float, **changes: Any) -> dict[str, Any]:
    return {
        "test_acc": clean,
        "val_acc": clean + 1,
        "val_acc_noise": clean - 9,
        "params": 100,
        "time": 3.5,
        "converge_time": 0.5,
        "ghn2_test_acc": clean / 2,
        "ghn1_test_acc": clean / 3,
        "mlp_test_acc": clean / 4,
        **changes,
    }


def write(path: pathlib.Path, data: Any) -> pathlib.Path:
    path.write_text(json.dumps(data))
    return path


def test_properties_and_their_traps(tmp_path: pathlib.Path) -> None:
    data = {"test": {"10": row(80), "2": row(90, converge_time=2)}, "deep": {"0": row(70)}}
    found = read_released(write(tmp_path / "a.json", data))
    first, second = found["test"]
    assert (first.test, second.test) == (90, 80)  # in the order of their numbers
    assert (first.clean, first.noisy, first.seconds) == (91, 81, 3.5)
    assert (first.convergence, second.convergence) == (math.inf, 0.5)
    (deep,) = found["deep"]
    assert (deep.clean, deep.test) == (70, 70)
    assert math.isnan(deep.noisy)
    assert deep.predicted == {"GHN-2": 35, "GHN-1": 70 / 3, "MLP": 17.5}
    text = published_table(found)
    assert "85.0 +- 3.5 (90.0)" in text


def test_curves_of_the_extended_file(tmp_path: pathlib.Path) -> None:
    curve = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    extended = row(0, test_acc=curve, val_acc=curve, val_acc_noise=curve)
    found = read_released(write(tmp_path / "a.json", {"test": {"0": extended}, "deep": {"0": extended}}))
    assert found["test"][0].clean == 70
    assert found["test"][0].curve == tuple(curve)
    assert found["deep"][0].predicted.keys() == {"GHN-2"}  # the others are copies of GHN-2's


@pytest.mark.parametrize("content", ["{}", "[1]", '{"test": {"0": {}}}', "{", '{"test": {"0": {"test_acc": "a"}}}'])
def test_other_files_are_refused_by_name(content: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no result file of the release"):
        read_released(path)
    with pytest.raises(ValueError, match="there is none"):
        read_released(tmp_path / "nothing.json")


@pytest.mark.skipif(not RESULTS.is_dir(), reason="result files of the release are not at hand")
def test_published_figures() -> None:
    found = read_released(RESULTS / "results_cifar10.json")
    assert {split: len(networks) for split, networks in found.items()} == {
        **{"val": 500, "test": 500, "wide": 100, "deep": 100, "dense": 100, "bnfree": 100, "predefined": 2}
    }
    text = published_table(found)
    (line,) = (line for line in text.splitlines() if line.split()[0] == "test")
    assert "88.5 +- 0.3 (93.1)" in line
    assert "66.9 +- 0.3 (77.1)" in line
    taus = published_taus(found["test"])
    assert taus["GHN-2, predicted"] == pytest.approx(0.27, abs=0.01)
    assert taus["parameters"] == pytest.approx(-0.01, abs=0.01)
    extended = read_released(RESULTS / "results_cifar10_extended.json")
    taus = published_taus(extended["test"])
    assert taus["1 epoch of training"] == pytest.approx(0.43, abs=0.01)
    assert taus["5 epochs of training"] == pytest.approx(0.64, abs=0.01)

"""`properties.py` at its smallest: ground truth of demo networks, a ladder, the release's tables."""

import json
import pathlib
import subprocess

import jax
import pytest
from parity_data import PARITY
from tiny_runs import finish, run_command

from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, save_file
from ghn_jax.properties import read_truth

RESULTS = PARITY.parent / "data" / "release_results"
TRUTH = (
    *("truth", "--split=demo", "--demo-width=8", "--image-size=8", "--together=2"),
    *("--steps=4", "--batch-size=16", "--test-images=32"),
)
CONFIG = GHNConfig(max_shape=(4, 4, 3, 3), hid=8)


def start(*options: str) -> subprocess.Popen[str]:
    return run_command(*options, script="properties.py")


@pytest.mark.slow
def test_truth_and_ladder(tmp_path: pathlib.Path) -> None:
    said = finish(start(*TRUTH, f"--out={tmp_path / 'truth'}", "--count=12"))
    assert said.splitlines()[-1].startswith("12 networks, top-1 ")
    assert len(read_truth(tmp_path / "truth" / "truth.jsonl")) == 12
    save_file(tmp_path / "ghn.npz", CONFIG, init_ghn(GHN(CONFIG), jax.random.key(0)))
    folders = (f"--fit={tmp_path / 'truth'}", f"--test={tmp_path / 'truth'}", f"--out={tmp_path / 'ladder'}")
    said = finish(start("ladder", *folders, "--ghns", str(tmp_path / "ghn.npz"), "--steps", "2"))
    names = {row["name"] for row in json.loads((tmp_path / "ladder" / "ladder.json").read_text())}
    expected = {"parameters", "products", "gradient norm", "snip", "synflow", "Jacobian", "NeuPred"}
    assert expected < names
    assert len(names) == len(expected) + 4  # SVR, boosting, predicted, predicted and two updates
    assert "predicted + 2 updates" in said


def test_a_folder_without_ground_truth_is_named(tmp_path: pathlib.Path) -> None:
    process = start("ladder", f"--fit={tmp_path}", f"--test={tmp_path}", f"--out={tmp_path / 'ladder'}")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said.startswith(f"properties: {tmp_path} holds no ground truth: make it by")


@pytest.mark.skipif(not RESULTS.is_dir(), reason="result files of the release are not at hand")
def test_published_tables() -> None:
    said = finish(start("published", f"--file={RESULTS / 'results_cifar10_extended.json'}"))
    assert "88.5 +- 0.3" in said
    assert "1 epoch of training" in said

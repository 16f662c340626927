"""From a folder of grey 28 x 28 pictures, as Fashion-MNIST's are, to a trained and evaluated hypernetwork."""

import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tiny_runs import ROOT, TINY, environment, finish, run_command

from ghn_jax.evaluation import EvaluationConfig, evaluate
from ghn_jax.evaluation.score_table import read_scores
from ghn_jax.metatraining.command import parse_config
from ghn_jax.metatraining.config_files import load_config
from ghn_jax.metatraining.loop import train
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.runs.metrics import read_metrics

SIDE = 28


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Scikit-learn's digits as PNG files of 28 x 28 pixels: 12 to train and 4 to test on of each of 10 classes."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    for label in range(10):
        for number, row in enumerate(np.flatnonzero(np.asarray(labels) == label)[:16]):
            target = folder / ("train" if number < 12 else "val") / f"class_{label}"
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[row]).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(target / f"{number}.png")
    return folder


def trained_and_evaluated(pictures: pathlib.Path, folder: pathlib.Path, train: Sequence[str], split: str) -> None:
    cache = str(folder / "cache")
    common = (f"--dataset=folder:{pictures}", f"--image-size={SIDE}")
    finish(run_command(*train, *common, f"--run-dir={folder / 'run'}", GHN_JAX_CACHE=cache))
    config = load_config(folder / "run")
    assert config.task == (10, SIDE)
    losses = [row["loss"] for row in read_metrics(folder / "run") if row["kind"] == "train"]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    evaluation = [f"--split={split}", "--architectures=2", "--batch-size=20"]
    evaluation += ["--demo-width=8"] * (split == "demo")
    command = [sys.executable, str(ROOT / "experiments" / "eval_ghn.py"), f"--ghn={folder / 'run'}"]
    done = subprocess.run(
        [*command, *common, *evaluation, f"--out={folder / 'scores'}"],
        env=environment(GHN_JAX_CACHE=cache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scores = read_scores(folder / "scores" / "scores.jsonl")
    assert len(scores) == 2
    assert all(0 <= score.top1 <= 1 for score in scores)
    assert "2 architectures" in done.stdout


def test_a_run_in_this_process(pictures: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))
    options = (*TINY, "--steps=1", f"--dataset=folder:{pictures}", f"--image-size={SIDE}", f"--run-dir={tmp_path}")
    result = train(parse_config(options, ""))
    assert result.config.task == (10, SIDE)
    (row,) = (row for row in read_metrics(tmp_path) if row["kind"] == "train")
    assert np.isfinite(row["loss"])
    asked = EvaluationConfig(split="demo", architectures=1, demo_width=8, batch_size=20, random_init="none")
    (score,) = evaluate(load_trained(tmp_path), result.images, asked).scores
    assert 0 <= score.top1 <= 1


@pytest.mark.slow
def test_the_demo_runs_on_28_x_28_pictures(pictures: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trained_and_evaluated(pictures, tmp_path, [*TINY, "--steps=3"], "demo")


@pytest.mark.slow  # networks of the full space: many layers to compile
def test_training_networks_run_on_28_x_28_pictures(pictures: pathlib.Path, tmp_path: pathlib.Path) -> None:
    left_out = ("--preset", "--demo-width", "--num-architectures")
    options = [option for option in TINY if not option.startswith(left_out)]
    trained_and_evaluated(pictures, tmp_path, ["--preset=ghn2", *options, "--max-nodes=200", "--steps=3"], "val")

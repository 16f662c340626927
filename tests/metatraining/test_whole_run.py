"""A whole tiny run: training, validation, final table and pictures; its hypernetwork evaluated by eval_ghn."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import ROOT, environment, finish, start

from ghn_jax.evaluation.score_table import read_scores
from ghn_jax.hypernet import load_ghn
from ghn_jax.metatraining.config_files import load_config
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.runs.metrics import read_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    folder = tmp_path_factory.mktemp("run")
    options = ("--steps=4", "--validate-every=2", "--validation-architectures=1", "--test-architectures=2")
    return folder, finish(start(folder, *options, "--sampler-workers=1", "--held-layers=10"))


def test_it_ends_with_a_table_and_pictures(run: tuple[pathlib.Path, str]) -> None:
    folder, output = run
    assert "predicted" in output
    assert "He init" in output
    assert "one prediction took" in output
    for name in ("test.png", "curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len(read_scores(folder / "test.jsonl")) == 2
    rows = read_metrics(folder)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [0, 1, 2, 3]
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [1, 3]
    throughput = [row["nets_images_per_second"] * row["seconds"] for row in rows if row["kind"] == "train"]
    np.testing.assert_allclose(throughput, 2 * 16, rtol=1e-4)


def test_it_holds_as_many_layers_as_it_was_told(run: tuple[pathlib.Path, str]) -> None:
    rows = [row for row in read_metrics(run[0]) if row["kind"] == "train"]
    assert max(row["layers_held"] for row in rows) <= 10
    assert rows[-1]["layers_reloaded"] > 0


def test_its_configuration_and_hypernetwork_can_be_loaded(run: tuple[pathlib.Path, str]) -> None:
    folder, _ = run
    config = load_config(folder)
    assert config.images.dataset == "digits"
    assert config.task == (10, 8)
    last, best = load_ghn(folder / "ghn.npz"), load_trained(folder)
    assert last.config == best.config == config.ghn
    with pytest.raises(ValueError, match="no hypernetwork"):
        load_trained(folder / "nothing")


def test_eval_ghn_scores_it_and_goes_on_where_it_stopped(run: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    folder, _ = run
    options = (
        "--split=demo",
        "--demo-width=8",
        "--image-size=8",
        "--images=64",
        "--batch-size=16",
        f"--out={tmp_path}",
    )
    command = [sys.executable, str(ROOT / "experiments" / "eval_ghn.py"), f"--ghn={folder}", *options]
    outputs = [
        subprocess.run(
            [*command, f"--architectures={count}"], env=environment(), capture_output=True, text=True, check=True
        ).stdout
        for count in (1, 2)
    ]
    assert "1 architectures" in outputs[0]
    assert "evaluation 1/" not in outputs[1]
    assert "2 architectures" in outputs[1]
    assert len(read_scores(tmp_path / "scores.jsonl")) == 2
    assert (tmp_path / "histogram.png").exists()


def test_mistakes_end_with_one_line(tmp_path: pathlib.Path) -> None:
    process = start(tmp_path, "--dataset=there_is_no_such_set")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "meta_train: the image set 'there_is_no_such_set' is not prepared" in output
    assert "Traceback" not in output

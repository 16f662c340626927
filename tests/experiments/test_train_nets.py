"""`train_nets.py`: the table and the picture, kills, and folders of other questions."""

import pathlib
import random
import subprocess
from typing import Any

import jax
import numpy as np
import pytest
import train_nets
from random_kills import kill, lines, wait_until
from tiny_runs import finish, run_command

from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, save_file
from ghn_jax.training.study import read_curves

OPTIONS = (
    *(
        "--split=demo",
        "--demo-width=8",
        "--count=1",
        "--image-size=8",
        "--images-per-class=20",
        "--keep-weights",
        "--checkpoint-minutes=0",
    ),
    *("--steps=24", "--batch-size=16", "--test-images=64", "--curve", "3", "10", "20"),
)
GHN_OF_TEST = GHNConfig(max_shape=(4, 4, 3, 3), hid=8)


def start(folder: pathlib.Path, *options: str) -> subprocess.Popen[str]:
    return run_command(f"--out={folder}", *options, script="train_nets.py")


@pytest.fixture(scope="module")
def ghn(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ghn") / "ghn.npz"
    save_file(path, GHN_OF_TEST, init_ghn(GHN(GHN_OF_TEST), jax.random.key(0)))
    return f"--ghn={path}"


@pytest.fixture(scope="module")
def whole(ghn: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole")
    said = finish(start(folder, *OPTIONS, ghn))
    assert "compared with he" in said
    assert "worth, updates" in said
    return folder


def weights(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for path in sorted((folder / "weights").iterdir()):
        with np.load(path) as archive:
            found[path.stem] = {name: archive[name] for name in archive.files}
    return found


def updates(folder: pathlib.Path) -> int:
    """Rows that the network under way has written."""
    return sum(lines(path) for path in folder.glob("runs/*/metrics.jsonl"))


def test_results(whole: pathlib.Path) -> None:
    curves = read_curves(whole / "curves.jsonl")
    assert len(curves) == 2
    assert {curve.name.rsplit("-", 1)[1] for curve in curves} == {"he", "predicted"}
    assert {curve.steps for curve in curves} == {(0, 3, 10, 20, 24)}
    assert not list((whole / "runs").iterdir())
    assert (whole / "starts.png").stat().st_size > 10_000
    assert sorted(weights(whole)) == sorted(curve.name for curve in curves)


def test_killed_runs_end_as_one_that_was_not(whole: pathlib.Path, ghn: str, tmp_path: pathlib.Path) -> None:
    rng = random.Random(0)
    for _ in range(2):
        process, before = start(tmp_path, *OPTIONS, ghn), updates(tmp_path)
        more = rng.randint(5, 12)
        wait_until(process, lambda before=before, more=more: abs(updates(tmp_path) - before) > more)
        kill(process)
    finish(start(tmp_path, *OPTIONS, ghn))
    assert read_curves(tmp_path / "curves.jsonl") == read_curves(whole / "curves.jsonl")
    expected = weights(whole)
    for name, arrays in weights(tmp_path).items():
        for path, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name][path], err_msg=f"{name} {path}")


@pytest.mark.slow
def test_a_model_of_ones_own_is_trained(tmp_path: pathlib.Path) -> None:
    model = (
        "--model=ghn_jax.networks.zoo:create",
        '--arguments={"name": "resnet18", "num_classes": 10, "small_images": true}',
    )
    options = ("--image-size=16", "--steps=6", "--batch-size=16", "--test-images=32", "--bn=running")
    said = finish(start(tmp_path, *model, *options, "--starts", "he", "orthogonal"))
    assert "orthogonal" in said.splitlines()[-2]
    assert len(read_curves(tmp_path / "curves.jsonl")) == 2


def test_another_question_is_not_mixed_in(whole: pathlib.Path, ghn: str) -> None:
    process = start(whole, *OPTIONS, ghn, "--seed=1")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(f"train_nets: {whole} holds other results (seed was 0, now 1)")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "predicted starts need a hypernetwork: give --ghn"),
        ({"starts": ("he", "nothing")}, "starts must be some of he, torch, orthogonal"),
        ({"starts": ("he", "he")}, "each once, got he he"),
        ({"starts": ("he",), "arguments": "{}x"}, "arguments = '{}x' has no effect without --model"),
        ({"starts": ("he",), "count": 0}, "count must be"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], words: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=words):
        train_nets.Options(tmp_path, **changes)


def test_only_linen_models_are_trained(tmp_path: pathlib.Path) -> None:
    options = train_nets.Options(tmp_path, starts=("he",), model="json:JSONDecoder", image_size=8)
    with pytest.raises(ValueError, match="must be a Flax linen model"):
        train_nets.run(options)

"""Evaluations that are killed, and go on."""

import dataclasses
import pathlib
import random
import subprocess
import sys

import pytest
from random_kills import kill_any_time, lines
from tiny_networks import tiny_ghn
from tiny_runs import ROOT, environment

from ghn_jax.evaluation.score_table import SCORES_FILE, Score, read_scores
from ghn_jax.hypernet import save_file

COMMAND = (sys.executable, str(ROOT / "experiments" / "eval_ghn.py"))


@pytest.fixture(scope="module")
def ghn(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("ghn") / "tiny.npz"
    module, variables = tiny_ghn()
    save_file(path, module.config, variables)
    return path


def start(ghn: pathlib.Path, folder: pathlib.Path, count: int) -> subprocess.Popen[str]:
    options = ("--split=demo", "--demo-width=8", "--image-size=8", "--images=64", "--batch-size=32")
    return subprocess.Popen(
        [*COMMAND, f"--ghn={ghn}", *options, f"--architectures={count}", f"--out={folder}"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def scores(folder: pathlib.Path) -> list[Score]:
    """As they are in the file, without the time that each took."""
    return [dataclasses.replace(score, seconds=0) for score in read_scores(folder / SCORES_FILE)]


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_twenty_kills_are_twenty_resumes(ghn: pathlib.Path, tmp_path: pathlib.Path) -> None:
    count, rng, folder = 120, random.Random(0), tmp_path / "killed"
    finish(start(ghn, tmp_path / "whole", count))
    for _ in range(20):
        kill_any_time(start(ghn, folder, count), rng, folder / SCORES_FILE)
    done = lines(folder / SCORES_FILE)
    print(f"20 kills, {done} of {count} architectures then")
    assert done < count
    finish(start(ghn, folder, count))
    assert scores(folder) == scores(tmp_path / "whole")

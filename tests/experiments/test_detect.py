"""`detect.py` at its smallest: two starts, and going on."""

import pathlib
import subprocess

import pytest
from tiny_runs import finish, run_command

OPTIONS = (
    *("--size=32", "--images=8", "--seeds=1", "--width=8", "--cells=3", "--epochs=2", "--starts", "he", "orthogonal"),
    *("--sides", "12", "--proposals=10", "--candidates=20", "--looked-at=8", "--hidden=16", "--warmup-steps=2"),
)


def start(*options: str) -> subprocess.Popen[str]:
    return run_command(*OPTIONS, *options, script="detect.py")


@pytest.mark.slow
def test_a_comparison(tmp_path: pathlib.Path) -> None:
    said = finish(start(f"--out={tmp_path}"))
    assert "average precision at overlap 0.5 after 2 epochs, 1 seeds" in said
    assert "orthogonal" in said.splitlines()[-2]
    again = finish(start(f"--out={tmp_path}"))
    assert said.splitlines()[-3:] == again.splitlines()[-3:]
    assert "epoch 2" not in again


def test_predicted_starts_need_a_hypernetwork(tmp_path: pathlib.Path) -> None:
    process = start(f"--out={tmp_path}", "--starts", "predicted")
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "predicted starts need a hypernetwork: give --ghn" in " ".join(said.replace("│", " ").split())

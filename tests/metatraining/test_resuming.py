"""Runs that are killed or stopped, and go on."""

import pathlib
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from tiny_runs import finish, start, weights

from ghn_jax.runs.metrics import METRICS_FILE, read_metrics

STEPS = 30
COUNTED = ("--seed=1", "--num-architectures=4", "--max-nodes=140")
"""Architectures of which some draws are held out and half of the meta-batches have too many nodes."""

OPTIONS = (*COUNTED, f"--steps={STEPS}", "--checkpoint-minutes=0")  # a checkpoint after every update


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, *OPTIONS))
    return folder


def wait_for_steps(folder: pathlib.Path, process: subprocess.Popen[str], steps: int) -> None:
    """Returns once a run has written so many rows."""
    path = folder / METRICS_FILE
    end = time.monotonic() + 600
    while not path.exists() or path.read_text().count("\n") < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def totals(folder: pathlib.Path) -> tuple[int, int]:
    """Draws held out, which each row counts since the one before, and networks passed over, counted from the start."""
    rows = read_metrics(folder)
    return sum(row["networks_held_out"] for row in rows), rows[-1]["networks_passed_over"]


def same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    """Weights bit for bit, the same losses at every step, and as many networks held out and passed over."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    losses = [[(row["step"], row["loss"]) for row in read_metrics(folder)] for folder in (one, other)]
    assert [step for step, _ in losses[0]] == list(range(STEPS))
    assert losses[0] == losses[1]
    assert totals(one) == totals(other)
    assert min(totals(one)) > 0


def test_a_killed_run_ends_as_one_that_was_not(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path, *OPTIONS)
    wait_for_steps(tmp_path, process, 5)
    time.sleep(random.uniform(0, 1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(tmp_path, *OPTIONS))
    same_run(uninterrupted, tmp_path)


def test_a_terminated_run_saves_exits_cleanly_and_goes_on(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    slow = (*COUNTED, f"--steps={STEPS}", "--checkpoint-minutes=100")
    process = start(tmp_path, *slow)
    wait_for_steps(tmp_path, process, 3)
    process.send_signal(signal.SIGTERM)
    finish(process)
    done = len(read_metrics(tmp_path))
    assert 3 <= done < STEPS
    assert str(done) in [p.name for p in (tmp_path / "checkpoints").iterdir()]
    finish(start(tmp_path, *slow))
    same_run(uninterrupted, tmp_path)

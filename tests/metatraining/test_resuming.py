"""Runs that are killed or stopped, and go on."""

import contextlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from random_kills import kill_any_time, kill_while_writing, lines, wait_until
from tiny_runs import finish, start, weights

from ghn_jax.runs.checkpoints import checkpoint_folder, saved_steps
from ghn_jax.runs.metrics import METRICS_FILE, read_metrics
from ghn_jax.runs.records import read_record

STEPS = 30
COUNTED = ("--seed=1", "--num-architectures=4", "--max-nodes=140", "--average=0.9")
"""Some draws are held out, half of the meta-batches have too many nodes, and the weights are averaged."""

OPTIONS = (*COUNTED, f"--steps={STEPS}", "--checkpoint-minutes=0")  # one after every update


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, *OPTIONS))
    return folder


def totals(folder: pathlib.Path) -> tuple[int, int]:
    """Draws held out, which each row counts since the one before, and networks passed over, counted from the start."""
    rows = read_metrics(folder)
    return sum(row["networks_held_out"] for row in rows), rows[-1]["networks_passed_over"]


def same_run(one: pathlib.Path, other: pathlib.Path, steps: int = STEPS) -> None:
    """Weights and optimiser bit for bit, the same losses at every step, as many networks held out and passed over."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    records = [read_record(checkpoint_folder(folder, steps)) for folder in (one, other)]
    assert records[0].digests
    assert (records[0].digests, records[0].rest) == (records[1].digests, records[1].rest)
    losses = [[(row["step"], row["loss"]) for row in read_metrics(folder)] for folder in (one, other)]
    assert [step for step, _ in losses[0]] == list(range(steps))
    assert losses[0] == losses[1]
    assert totals(one) == totals(other)
    assert min(totals(one)) > 0


def test_a_run_killed_twice_ends_as_one_that_was_not(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rng = random.Random(0)
    process = start(tmp_path, *OPTIONS)
    wait_until(process, lambda: lines(tmp_path / METRICS_FILE) >= 2)
    kill_any_time(process, rng, tmp_path / METRICS_FILE)
    kill_while_writing(start(tmp_path, *OPTIONS), rng, tmp_path)
    assert lines(tmp_path / METRICS_FILE) < STEPS
    finish(start(tmp_path, *OPTIONS))
    same_run(uninterrupted, tmp_path)


LONG = 100
KILLS = 25


@pytest.fixture(scope="module")
def uninterrupted_long(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("long")
    finish(start(folder, *OPTIONS, f"--steps={LONG}"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_are_a_hundred_resumes(
    seed: int, uninterrupted_long: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Four runs that are killed 25 times each: every second time while a checkpoint is written, seen afterwards."""
    rng, options = random.Random(seed), (*OPTIONS, f"--steps={LONG}")
    inside = anywhere = 0
    while inside + anywhere < KILLS:
        process = start(tmp_path, *options)
        if inside <= anywhere:
            really = kill_while_writing(process, rng, tmp_path)
            inside, anywhere = inside + really, anywhere + (not really)
        else:
            kill_any_time(process, rng, tmp_path / METRICS_FILE)
            anywhere += 1
    done = saved_steps(tmp_path)[-1]
    print(f"{inside} kills while a checkpoint was written, {anywhere} elsewhere, at {done} of {LONG} updates")
    assert inside >= KILLS // 2
    assert done < LONG
    finish(start(tmp_path, *options))
    same_run(uninterrupted_long, tmp_path, LONG)
    assert not (tmp_path / "damaged").exists()


def test_a_terminated_run_saves_exits_cleanly_and_goes_on(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    slow = (*COUNTED, f"--steps={STEPS}", "--checkpoint-minutes=100")
    process = start(tmp_path, *slow)
    wait_until(process, lambda: lines(tmp_path / METRICS_FILE) >= 3)
    process.send_signal(signal.SIGTERM)
    finish(process)
    done = len(read_metrics(tmp_path))
    assert 3 <= done < STEPS
    assert str(done) in [p.name for p in (tmp_path / "checkpoints").iterdir()]
    finish(start(tmp_path, *slow))
    same_run(uninterrupted, tmp_path)


def worker_of(process: subprocess.Popen[str], *others: int) -> int | None:
    """A process that draws architectures for a run, none of the others; None while there is none."""
    for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads and children end while one reads
            for child in map(int, task.read_text().split()):
                if child not in others and b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
    return None


def kill_worker(process: subprocess.Popen[str], *others: int) -> int:
    wait_until(process, lambda: worker_of(process, *others) is not None)
    worker = worker_of(process, *others)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    return worker


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_killed_worker_is_started_once_more(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = (*COUNTED, f"--steps={STEPS}", "--checkpoint-minutes=100", "--sampler-workers=1")
    process = start(tmp_path, *options)
    wait_until(process, lambda: lines(tmp_path / METRICS_FILE) >= 2)
    kill_worker(process, kill_worker(process))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    (done,) = saved_steps(tmp_path)
    assert f"a worker process was killed: it is started anew, after {done} updates" in output
    assert f"the {done} updates made so far are saved" in output
    assert "meta_train: a worker process was killed again, after it had been started anew" in output
    assert "Traceback" not in output
    process = start(tmp_path, *options)
    kill_worker(process)
    assert "it is started anew" in finish(process)
    same_run(uninterrupted, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limits of another process")
def test_a_run_that_cannot_write_any_more_loses_nothing(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """No file may become longer than some bytes from the third update on: nothing can be written, as on a full disk."""
    process = start(tmp_path, *OPTIONS)
    wait_until(process, lambda: lines(tmp_path / METRICS_FILE) >= 3)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (500, 500))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert f"meta_train: {tmp_path}" in output
    assert "File too large" in output
    assert "Traceback" not in output
    assert 1 <= saved_steps(tmp_path)[-1] < STEPS
    finish(start(tmp_path, *OPTIONS))
    same_run(uninterrupted, tmp_path)

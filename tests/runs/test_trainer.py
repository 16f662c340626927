"""The trainer with a task that knows nothing of hypernetworks: checkpoints, kills, signals, failures, processes."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_kills import Forks, kill_any_time, kill_while_writing
from tiny_runs import ROOT, environment

from ghn_jax.runs.callbacks import Callback, Decision, SaveEvery, TimeLimit, Validation
from ghn_jax.runs.checkpoints import best_step, checkpoint_folder, restore, saved_steps
from ghn_jax.runs.environment import VERSIONS_FILE
from ghn_jax.runs.memory import memory_left
from ghn_jax.runs.metrics import METRICS_FILE, read_metrics
from ghn_jax.runs.records import read_record
from ghn_jax.runs.restarting import WorkerError
from ghn_jax.runs.trainer import NumberedBatches, StepOutput, Trainer, by_number

TASK = ROOT / "tests" / "regression_task.py"
STEPS = 60


def start(folder: pathlib.Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(TASK), str(folder), str(STEPS)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for_rows(folder: pathlib.Path, process: subprocess.Popen[str], rows: int) -> None:
    path, end = folder / METRICS_FILE, time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") < rows:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def final_state(folder: pathlib.Path) -> list[np.ndarray]:
    like = (jnp.zeros(3), optax.adam(0.05).init(jnp.zeros(3)))
    state, rest = restore(folder, STEPS, like)
    assert rest == {"position": STEPS}
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def losses(folder: pathlib.Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(folder) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder))
    return folder


def same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    for first, second in zip(final_state(one), final_state(other), strict=True):
        np.testing.assert_array_equal(first, second)
    assert losses(one) == losses(other)
    assert [step for step, _ in losses(one)] == list(range(STEPS))


def test_it_learns_validates_and_keeps_the_best(uninterrupted: pathlib.Path) -> None:
    rows = read_metrics(uninterrupted)
    validations = [(row["step"], row["closeness"]) for row in rows if row["kind"] == "validation"]
    assert [step for step, _ in validations] == [19, 39, 59]
    assert validations[-1][1] > validations[0][1]
    assert saved_steps(uninterrupted) == [STEPS - 1, STEPS]


def test_a_killed_run_goes_on_bit_for_bit(uninterrupted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for rows in (5, 30):
        process = start(tmp_path)
        wait_for_rows(tmp_path, process, rows)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert saved_steps(tmp_path)[-1] < STEPS
    finish(start(tmp_path))
    same_run(uninterrupted, tmp_path)


LONG, KILLS = 80, 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_kills_are_a_hundred_resumes(seed: int, tmp_path: pathlib.Path) -> None:
    """Ten runs of ten kills: half while a checkpoint is written, as is seen afterwards, the others at any moment."""
    rng, folder, forks = random.Random(seed), tmp_path / "killed", Forks()
    assert forks.start(tmp_path / "whole", LONG).communicate()[0] == "exit code 0"
    inside = anywhere = 0
    while inside + anywhere < KILLS:
        process = forks.start(folder, LONG)
        if inside <= anywhere:
            really = kill_while_writing(process, rng, folder)
            inside, anywhere = inside + really, anywhere + (not really)
        else:
            kill_any_time(process, rng, folder / METRICS_FILE, starts=2)
            anywhere += 1
    done = saved_steps(folder)[-1]
    print(f"{inside} kills while a checkpoint was written, {anywhere} elsewhere, at {done} of {LONG} updates")
    assert inside >= KILLS // 2
    assert done < LONG
    assert forks.start(folder, LONG).communicate()[0] == "exit code 0"
    forks.close()
    records = [read_record(checkpoint_folder(place, LONG)) for place in (tmp_path / "whole", folder)]
    assert records[0].digests == records[1].digests
    assert losses(tmp_path / "whole") == losses(folder)
    assert [step for step, _ in losses(folder)] == list(range(LONG))
    assert not (folder / "damaged").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_checkpoint(
    uninterrupted: pathlib.Path, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    process = start(tmp_path)
    wait_for_rows(tmp_path, process, 5)
    process.send_signal(number)
    output = finish(process)
    assert f"{number.name}: the run ends after the current update" in output
    assert 5 <= len(losses(tmp_path)) == saved_steps(tmp_path)[-1] < STEPS
    finish(start(tmp_path))
    same_run(uninterrupted, tmp_path)


class Counter:
    """Batches that note whether they were closed."""

    closed = 0
    position = 0

    def next(self) -> int:
        self.position += 1
        return self.position

    def close(self) -> None:
        self.closed += 1


def trainer(folder: pathlib.Path, step_fn=None, callbacks=(), batches=None, total: int = 5) -> Trainer:
    def plain(state, batch, number, key):
        return StepOutput({"count": state["count"] + 1}, {"loss": 0.0})

    return Trainer(
        step_fn or plain,
        {"count": jnp.zeros(())},
        batches or by_number(lambda number: number),
        callbacks,
        folder=folder,
        total_steps=total,
        key=jax.random.key(0),
    )


def test_batches_are_closed_and_handlers_restored_however_a_run_ends(tmp_path: pathlib.Path) -> None:
    def fails(state, batch, number, key):
        raise RuntimeError("no update")

    before = signal.getsignal(signal.SIGINT)
    batches = Counter()
    with pytest.raises(RuntimeError, match="no update"):
        trainer(tmp_path, fails, batches=lambda *_: batches).run()
    assert batches.closed == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert saved_steps(tmp_path) == []


def test_a_start_that_fails_leaves_nothing_that_blocks_the_next(tmp_path: pathlib.Path) -> None:
    def no_batches(*_):
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        trainer(tmp_path, batches=no_batches).run()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert float(trainer(tmp_path).run().state["count"]) == 5


def test_an_ended_run_is_not_run_again_and_may_go_on_for_longer(tmp_path: pathlib.Path) -> None:
    assert trainer(tmp_path).run().done == 5
    again = trainer(tmp_path).run()
    assert (again.done, float(again.state["count"]), again.interrupted) == (5, 5, False)
    longer = trainer(tmp_path, total=8).run()
    assert (longer.done, float(longer.state["count"]), longer.position) == (8, 8, 8)


def test_a_run_short_of_memory_saves_and_stops(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([None, 10**9, 2 * 10**8, 10**6])
    monkeypatch.setattr("ghn_jax.runs.memory.memory_left", lambda: next(left))
    with pytest.raises(MemoryError, match="1 MB are left to this process, at least 200 are needed"):
        trainer(tmp_path).run()
    assert saved_steps(tmp_path) == [3]


def test_memory_that_is_left_is_the_least_of_the_bounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr("ghn_jax.runs.memory._CONTROL_GROUP", tmp_path)
    machine = memory_left()
    for name, text in (("max", "5000000"), ("current", "4000000"), ("stat", "anon 9\ninactive_file 100000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory_left() == 1_100_000
    (tmp_path / "memory.max").write_text("max\n")
    if machine is not None:
        assert memory_left() == pytest.approx(machine, rel=0.2)


@pytest.mark.parametrize("fails", ["batch", "update"])
def test_what_was_reached_before_an_error_is_saved(
    fails: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    def third(number: int) -> int:
        if number == 3 and fails == "batch":
            raise OSError("no such picture")
        return number

    def step_fn(state, batch, number, key):
        if number == 3 and fails == "update":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return StepOutput({"count": state["count"] + 1}, {"loss": 0.0})

    with pytest.raises((OSError, RuntimeError), match=r"no such picture|RESOURCE_EXHAUSTED"):
        trainer(tmp_path, step_fn, batches=by_number(third)).run()
    assert saved_steps(tmp_path) == [3]
    assert "the 3 updates made so far are saved" in caplog.text
    again = trainer(tmp_path).run()
    assert (again.done, float(again.state["count"])) == (5, 5)


def test_a_state_that_an_update_gave_up_is_not_saved(tmp_path: pathlib.Path) -> None:
    def step_fn(state, batch, number, key):
        if number == 2:
            state["count"].delete()
            raise RuntimeError("too late")
        return StepOutput({"count": state["count"] + 1}, {"loss": 0.0})

    with pytest.raises(RuntimeError, match="too late"):
        trainer(tmp_path, step_fn).run()
    assert saved_steps(tmp_path) == []


class Killed(Counter):
    """Batches whose worker dies as soon as it is asked for the numbers in `at`."""

    def __init__(self, position: int | None, at: list[int]) -> None:
        self.position, self.at = position or 0, at

    def next(self) -> int:
        if self.position in self.at:
            self.at.remove(self.position)
            raise BrokenProcessPool("a process was terminated")
        return super().next()


@pytest.mark.parametrize(("at", "done"), [([2], 5), ([0], 5), ([2, 2], 2), ([1, 3], 3)])
def test_workers_are_started_once_more(
    at: list[int], done: int, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, begun = at[0], []

    def batches(number, position, progress):
        begun.append(Killed(position, at))
        assert number == (position or 0)
        return begun[-1]

    if done == 5:
        assert trainer(tmp_path, batches=batches).run().position == 5
    else:
        with pytest.raises(WorkerError, match="killed again"):
            trainer(tmp_path, batches=batches).run()
    assert [source.closed for source in begun] == [1, 1]
    assert f"a worker process was killed: it is started anew, after {first} updates" in caplog.text
    assert saved_steps(tmp_path) == sorted({first, done} - {0})
    assert trainer(tmp_path).run().done == 5


def test_batches_get_the_number_and_the_position_that_they_go_on_from(tmp_path: pathlib.Path) -> None:
    asked = []

    def batches(first, position, progress):
        asked.append((first, position))
        counter = Counter()
        counter.position = position or 0
        return counter

    trainer(tmp_path, batches=batches, total=2).run()
    trainer(tmp_path, batches=batches, total=4).run()
    assert asked == [(0, None), (2, 2)]


def test_every_update_has_a_key_of_its_own_number(tmp_path: pathlib.Path) -> None:
    keys = {}

    def step_fn(state, batch, number, key):
        keys.setdefault(number, []).append(tuple(jax.random.key_data(key).tolist()))
        return StepOutput(state, {"loss": 0.0})

    trainer(tmp_path / "a", step_fn, total=4).run()
    trainer(tmp_path / "b", step_fn, total=2).run()
    trainer(tmp_path / "b", step_fn, total=4).run()
    assert len({key for found in keys.values() for key in found}) == 4
    assert all(len(found) == 2 and len(set(found)) == 1 for found in keys.values())


class Wishes(Callback):
    def __init__(self, wish: Decision) -> None:
        self.decisions, self._wish = [], wish

    def wish(self, update):
        return self._wish if update.done == 2 else Decision()

    def after_step(self, update, decision, log):
        self.decisions.append(decision)


@pytest.mark.parametrize(
    ("wish", "done", "saved"), [(Decision(stop=True), 2, [2]), (Decision(save=True), 5, [2, 5]), (Decision(), 5, [5])]
)
def test_a_wish_of_one_callback_is_the_decision_of_all(
    tmp_path: pathlib.Path, wish: Decision, done: int, saved: list[int]
) -> None:
    first, second = Wishes(wish), Wishes(Decision())
    assert trainer(tmp_path, callbacks=[first, second]).run().done == done
    assert saved_steps(tmp_path) == saved
    assert first.decisions == second.decisions
    assert first.decisions[-1].stop


def test_a_time_limit_ends_a_run_after_an_update(tmp_path: pathlib.Path) -> None:
    outcome = trainer(tmp_path, callbacks=[TimeLimit(0.0)]).run()
    assert (outcome.done, outcome.interrupted) == (1, False)
    assert trainer(tmp_path, callbacks=[TimeLimit(60.0), SaveEvery(60.0)]).run().done == 5


def test_checkpoints_are_ranked_by_the_validation(tmp_path: pathlib.Path) -> None:
    def evaluate(state):
        return {"score": 1.0 if state["count"] == 2 else 0.5}

    trainer(tmp_path, callbacks=[Validation(evaluate, 2, "score")], total=9).run()
    assert best_step(tmp_path) == 2
    with pytest.raises(ValueError, match="at least 1"):
        Validation(evaluate, 0, "score")


def test_a_resume_under_other_versions_says_so(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ghn_jax")
    trainer(tmp_path, total=2).run()
    assert "other versions" not in caplog.text
    path = tmp_path / VERSIONS_FILE
    (row,) = json.loads(path.read_text())
    assert row["first"] == 0
    assert {"python", "jax", "jaxlib", "flax", "optax"} <= row["versions"].keys()
    now, row["versions"]["jax"] = row["versions"]["jax"], "0.0.1"
    path.write_text(json.dumps([row]))
    trainer(tmp_path, total=4).run()
    assert f"resumed under other versions, results may differ: jax was 0.0.1, is {now}" in caplog.text
    assert [row["first"] for row in json.loads(path.read_text())] == [0, 2]


def test_numbered_batches_begin_where_they_are_asked_to() -> None:
    batches = NumberedBatches(lambda number: 10 * number, 3)
    assert [batches.next(), batches.next(), batches.position] == [30, 40, 5]
    batches.close()


def test_a_second_signal_is_not_swallowed(tmp_path: pathlib.Path) -> None:
    def interrupted_twice(state, batch, number, key):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return StepOutput(state, {"loss": 0.0})

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test worker ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path, interrupted_twice).run()
    finally:
        signal.signal(signal.SIGINT, before)

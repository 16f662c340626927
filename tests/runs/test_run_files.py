"""Files of a run: metrics, checkpoints, pictures."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.runs.checkpoints import Checkpoints, best_step, restore, saved_steps
from ghn_jax.runs.metrics import METRICS_FILE, MetricWriter, read_metrics
from ghn_jax.runs.pictures import curve_picture, histogram_picture


def test_metrics_are_json_lines_and_tensorboard_events(tmp_path: pathlib.Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write("train", 0, {"loss": 2.5, "skipped": 0})
    writer.write("train", 1, {"loss": float("nan"), "skipped": 1})
    writer.close()
    rows = read_metrics(tmp_path)
    assert rows == [
        {"kind": "train", "step": 0, "loss": 2.5, "skipped": 0},
        {"kind": "train", "step": 1, "loss": "nan", "skipped": 1},
    ]
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_a_resumed_run_has_every_step_once(tmp_path: pathlib.Path) -> None:
    first = MetricWriter(tmp_path)
    for step in range(5):
        first.write("train", step, {"loss": 1.0})
    first.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"kind": "tr')  # killed while writing
    second = MetricWriter(tmp_path, first_step=3)
    second.write("train", 3, {"loss": 2.0})
    second.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(0, 1), (1, 1), (2, 1), (3, 2)]


def test_damaged_or_missing_metrics_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no folder of a run"):
        read_metrics(tmp_path)
    (tmp_path / METRICS_FILE).write_text('oops\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_metrics(tmp_path)


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: pathlib.Path) -> None:
    assert (saved_steps(tmp_path), best_step(tmp_path)) == ([], None)
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    for step, metric in ((1, 0.1), (2, 0.9), (3, None), (4, 0.5), (5, None)):
        checkpoints.save(step, {"w": jnp.full(3, step, jnp.float32)}, {"position": 10 * step}, metric)
    checkpoints.close()
    assert (saved_steps(tmp_path), best_step(tmp_path)) == ([2, 4, 5], 2)
    like = {"w": jnp.zeros(3)}
    for step in (2, 4, 5):
        state, rest = restore(tmp_path, step, like)
        np.testing.assert_array_equal(state["w"], np.full(3, step))
        assert rest == {"position": 10 * step}
    with pytest.raises(ValueError, match=r"no checkpoint of step 3, only of \[2, 4, 5\]"):
        restore(tmp_path, 3, like)
    with pytest.raises(ValueError, match="keep_last"):
        Checkpoints(tmp_path, keep_last=0)


def test_pictures_are_drawn(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no folder of a run"):
        curve_picture(tmp_path)
    (tmp_path / METRICS_FILE).write_text("")
    with pytest.raises(ValueError, match="no training steps"):
        curve_picture(tmp_path)
    rows = [{"kind": "train", "step": i, "loss": 2.0, "accuracy": 0.1} for i in range(30)]
    rows.append({"kind": "validation", "step": 29, "top1": 0.2, "error": 0.01})
    (tmp_path / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (
        curve_picture(tmp_path),
        histogram_picture({"predicted": [0.5, 0.6]}, "two", tmp_path / "histogram.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {METRICS_FILE, "curves.png", "histogram.png"}

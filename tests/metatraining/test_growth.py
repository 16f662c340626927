"""Images that grow during a run: when each size has its turn, what goes on across the change, and resuming there."""

import pathlib
import signal

import numpy as np
import pytest
from random_kills import lines, wait_until
from tiny_runs import finish, start, weights

from ghn_jax.metatraining import ImageConfig, TrainConfig, load_config
from ghn_jax.metatraining.growth import PhasedBatches, phases
from ghn_jax.runs.metrics import METRICS_FILE, read_metrics

STEPS, SMALL = 20, 7
OPTIONS = (
    f"--steps={STEPS}",
    "--image-size=12",
    *("--small-sizes", "8", "--small-until", "0.35"),
    "--checkpoint-minutes=0",
)


def test_each_size_has_its_share_of_the_updates() -> None:
    images = ImageConfig(image_size=32, small_sizes=(16, 24), small_until=(0.5, 0.75))
    assert phases(TrainConfig(images=images), 1_000) == ((16, 500), (24, 750), (32, 1_000))
    assert phases(TrainConfig(images=ImageConfig(image_size=32)), 7) == ((32, 7),)
    with pytest.raises(ValueError, match="resolve the configuration first"):
        phases(TrainConfig(), 7)


@pytest.mark.parametrize(
    ("sizes", "until", "words"),
    [
        ((8,), (), "one share for each of small_sizes"),
        ((8, 12), (0.5, 0.5), "must rise from share to share"),
        ((8,), (1.0,), "small_until must be a finite number above 0 up to below 1"),
        ((0,), (0.5,), "small_sizes must be a whole number from 1"),
    ],
)
def test_shares_that_do_not_fit_are_refused(sizes: tuple[int, ...], until: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImageConfig(small_sizes=sizes, small_until=until)


class _Counted:
    """Batches that say their phase and position; each moves the position by 3."""

    def __init__(self, phase: int, number: int, position: int | None, closed: list[int]) -> None:
        self.phase, self.number, self.position, self._closed = phase, number, position or 0, closed

    def next(self) -> tuple[int, int, int]:
        self.position += 3
        self.number += 1
        return self.phase, self.number - 1, self.position

    def close(self) -> None:
        self._closed.append(self.phase)


@pytest.mark.parametrize("first", range(7))
def test_phases_go_on_where_the_one_before_ended(first: int) -> None:
    closed: list[int] = []
    ends = (2, 2, 5, 7)  # the second has no update

    def make(phase: int, number: int, position: int | None) -> _Counted:
        return _Counted(phase, number, position, closed)

    batches = PhasedBatches(ends, make, first, 3 * first or None)
    assert batches.position == 3 * first
    found = [batches.next() for _ in range(first, 7)]
    batches.close()
    every = [(0, 0, 3), (0, 1, 6), (2, 2, 9), (2, 3, 12), (2, 4, 15), (3, 5, 18), (3, 6, 21)]
    assert found == every[first:]
    assert batches.position == 21
    assert closed == sorted({phase for phase, _, _ in found})


def test_a_run_that_grows_resumes_at_the_size_it_had_reached(tmp_path: pathlib.Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(start(whole, *OPTIONS))
    process = start(stopped, *OPTIONS)
    wait_until(process, lambda: lines(stopped / METRICS_FILE) > SMALL)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert SMALL < len(read_metrics(stopped)) < STEPS
    finish(start(stopped, *OPTIONS))
    rows = [read_metrics(folder) for folder in (whole, stopped)]
    assert [row["image_size"] for row in rows[0]] == [8] * SMALL + [12] * (STEPS - SMALL)
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    first, second = weights(whole), weights(stopped)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert load_config(whole).images.small_sizes == (8,)

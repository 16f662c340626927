"""Progress is honest: what it is doing, the rate of the last minute, no estimate before there is one."""

import logging

import pytest

from ghn_jax.runs import progress as module
from ghn_jax.runs.progress import LogReporter, Progress


class Lines:
    """Keeps what is reported."""

    def __init__(self, every: float = 0.0) -> None:
        self.every, self.lines = every, []

    def say(self, text: str) -> None:
        self.lines.append(f"! {text}")

    def progress(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_there_is_no_estimate_at_first_and_none_while_it_waits(clock: list[float]) -> None:
    lines = Lines()
    progress = Progress(100, 0, "train", lines, waiting="compiling")
    progress.wait("layers")
    clock[0] += 5
    progress.advance("a")
    clock[0] += 45
    progress.advance("b", waited=44)
    assert lines.lines == [
        "train 0/100  compiling  layers",
        "train 1/100  a  12.0/min  no estimate yet",
        "train 2/100  compiling  b  2.4/min  no estimate yet",
    ]


def test_the_rate_is_that_of_the_last_minute(clock: list[float]) -> None:
    lines = Lines()
    progress = Progress(1000, 0, "train", lines)
    clock[0] += 600
    progress.advance("slow", waited=599)
    for _ in range(65):
        clock[0] += 1
        progress.advance("fast")
    assert lines.lines[-1] == "train 66/1000  fast  1.0/s  15.6 min left"
    progress = Progress(1000, 0, "train", lines, limit=120)
    clock[0] += 20
    progress.advance("limited")
    assert lines.lines[-1] == "train 1/1000  limited  3.0/min  1.7 min left"


def test_a_step_longer_than_the_window_still_has_a_rate(clock: list[float]) -> None:
    lines = Lines()
    progress = Progress(3, 0, "train", lines)
    for _ in range(3):
        clock[0] += 120
        progress.advance("x")
    assert lines.lines[-2:] == ["train 2/3  x  0.5/min  2.0 min left", "train 3/3  x  0.5/min  done"]


def test_lines_are_not_more_frequent_than_asked_for_and_the_last_is_shown(clock: list[float]) -> None:
    lines = Lines(every=10.0)
    progress = Progress(30, 5, "train", lines)
    for _ in range(25):
        clock[0] += 1
        progress.advance("x")
        progress.wait("y")
    progress.say("note")
    assert [line.split()[1] for line in lines.lines] == ["6/30", "16/30", "26/30", "30/30", "note"]


def test_without_a_reporter_lines_go_to_the_log(caplog: pytest.LogCaptureFixture, capsys) -> None:
    caplog.set_level(logging.INFO, "ghn_jax")
    progress = Progress(1, 0, "evaluation")
    progress.advance("top-1 50 %")
    progress.say("note")
    assert [record.getMessage().split("  ")[0] for record in caplog.records] == ["evaluation 1/1", "note"]
    assert capsys.readouterr().out == ""
    assert LogReporter(5.0).every == 5.0

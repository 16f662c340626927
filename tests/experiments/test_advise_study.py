"""`advise_study.py`: how results are read and summed up."""

import advise_study
import pytest

from ghn_jax.training import Curve


def curve(name: str, last: float) -> Curve:
    return Curve(name, (0, 5), (0.1, last), 0)


def test_the_last_accuracy_of_every_start() -> None:
    starts = ("he", "predicted", "predicted+noise")
    curves = [curve(f"test_{i}-{start}", 0.1 * i + place / 100) for i in (1, 2) for place, start in enumerate(starts)]
    found = advise_study.by_network([*curves, curve("test_3-he", 0.5)], starts)
    assert found.keys() == {"test_1", "test_2"}
    assert found["test_1"] == pytest.approx({"he": 0.1, "predicted": 0.11, "predicted+noise": 0.12})


def test_shares_and_regrets() -> None:
    ends = {"a": {"he": 0.5, "predicted": 0.4}, "b": {"he": 0.3, "predicted": 0.6}}
    found = [advise_study.Advised("a", "he"), advise_study.Advised("b", "he")]
    text = advise_study.summary(found, ends, 50)
    assert "advice is right for 50 %, at 100 updates each" in text
    lines = {line[:28].strip(): line[28:].split() for line in text.splitlines()[2:]}
    assert lines["advice"][0] == lines["always he"][0] == "15.00"
    assert lines["always predicted"][0] == "5.00"
    assert lines["always predicted"][-1] == "10.0"

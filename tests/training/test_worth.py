"""What a start is worth, from curves made by hand."""

import math

import numpy as np
import pytest

from ghn_jax.training import Curve, compare
from ghn_jax.training.worth import mean_curves, quartiles, steps_to, table

STEPS = (0, 10, 30)


def curve(*top1: float, name: str = "a") -> Curve:
    return Curve(name, STEPS, top1, 0)


def test_first_crossing() -> None:
    rising = curve(0.1, 0.5, 0.6)
    assert steps_to(rising, 0.1) == 0
    assert steps_to(rising, 0.3) == pytest.approx(5)
    assert steps_to(rising, 0.55) == pytest.approx(20)
    assert steps_to(rising, 0.61) == math.inf
    assert steps_to(curve(0.1, 0.5, 0.2), 0.4) == pytest.approx(7.5)
    assert steps_to(curve(0.1, 0.05, 0.2), 0.1) == 0  # the running maximum counts


def test_a_start_beside_a_conventional_one() -> None:
    conventional = [curve(0.1, 0.3, 0.5), curve(0.1, 0.3, 0.5), curve(0.1, 0.2, 0.3)]
    ours = [curve(0.3, 0.5, 0.6), curve(0.4, 0.45, 0.4), curve(0.35, 0.4, 0.4)]
    found = compare("predicted", ours, conventional)
    assert (found.networks, found.start) == (3, "predicted")
    assert found.first == pytest.approx(35.0)
    assert found.last == pytest.approx(46.667, abs=1e-3)
    assert found.worth == (pytest.approx(10.0), pytest.approx(20.0), math.inf)
    # to 50 %: 10 of 30 updates, never; to 30 %: at once
    assert found.saved == (-math.inf, pytest.approx(2 / 3), 1.0)
    assert found.worse == pytest.approx(1 / 3)
    assert found.p_value == pytest.approx(1.0)
    text = table([found], 30)
    assert "20 (10 to never)" in text
    assert "after 30, %" in text


def test_the_sign_test_counts_pairs() -> None:
    pairs = [(curve(0.1, 0.2, 0.3 + 0.01 * i), curve(0.1, 0.2, 0.3)) for i in range(1, 11)]
    found = compare("a", *(list(side) for side in zip(*pairs, strict=True)))
    assert found.p_value == pytest.approx(2 / 2**10)
    assert compare("a", [curve(0.1, 0.2, 0.3)], [curve(0.1, 0.2, 0.3)]).p_value == 1.0


def test_quartiles_are_values() -> None:
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.0, 2.0, 3.0)
    assert quartiles([1.0, math.inf, math.inf]) == (1.0, math.inf, math.inf)
    assert quartiles([5.0]) == (5.0, 5.0, 5.0)


def test_mean_curves() -> None:
    steps, means, errors = mean_curves({"he": [curve(0.1, 0.2, 0.3), curve(0.3, 0.2, 0.5)]})["he"]
    np.testing.assert_array_equal(steps, STEPS)
    np.testing.assert_allclose(means, [20, 20, 40])
    np.testing.assert_allclose(errors, [10, 0, 10], atol=1e-9)


def test_curves_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="must come in pairs, got 1 and 0"):
        compare("a", [curve(0.1, 0.2, 0.3)], [])

"""How many updates a start is worth: curves from several starts of the same networks, compared in pairs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.text_tables import aligned
from ghn_jax.training.task import Curve


def steps_to(curve: Curve, level: float) -> float:
    """Updates after which a curve first reaches an accuracy; infinity if it never does.

    The running maximum of the curve counts, and between two measurements it is a straight line.
    """
    best = np.maximum.accumulate(np.array(curve.top1))
    place = int(np.argmax(best >= level)) if best[-1] >= level else len(best)
    if place == len(best):
        return math.inf
    if place == 0:
        return float(curve.steps[0])
    (low, high), (start, end) = best[place - 1 : place + 1], curve.steps[place - 1 : place + 1]
    return float(start + (end - start) * (level - low) / (high - low))


@dataclasses.dataclass(frozen=True, slots=True)
class Worth:
    """A start beside a conventional one, over the same networks.

    Attributes:
      start: its name.
      networks: how many.
      first, first_error: mean accuracy before the first update in %, and its standard error over networks.
      last, last_error: after the last update.
      worth: updates from the conventional start until it is as good as this start before its first update: lower
        quartile, median and upper quartile over networks; infinity where it never is.
      saved: share of the conventional start's updates that this one needs less to reach the conventional one's last
        accuracy: lower quartile, median and upper quartile; minus infinity where it never reaches it.
      worse: share of networks whose last accuracy is below the conventional start's.
      p_value: of the paired sign test of that (two-sided, ties left out).
    """

    start: str
    networks: int
    first: float
    first_error: float
    last: float
    last_error: float
    worth: tuple[float, float, float]
    saved: tuple[float, float, float]
    worse: float
    p_value: float


def compare(start: str, curves: Sequence[Curve], conventional: Sequence[Curve]) -> Worth:
    """A start beside a conventional one; curves of the same networks in the same order.

    Raises:
      ValueError: for none, or unequally many.
    """
    if not curves or len(curves) != len(conventional):
        raise ValueError(f"curves must come in pairs, got {len(curves)} and {len(conventional)}")
    first = [100 * curve.top1[0] for curve in curves]
    last = np.array([100 * curve.top1[-1] for curve in curves])
    other = np.array([100 * curve.top1[-1] for curve in conventional])
    worth = [steps_to(theirs, ours.top1[0]) for ours, theirs in zip(curves, conventional, strict=True)]
    saved = []
    for ours, theirs in zip(curves, conventional, strict=True):
        goal = max(theirs.top1)
        needed, usual = steps_to(ours, goal), steps_to(theirs, goal)
        saved.append(1 - needed / usual if usual else 0.0)
    better, worse = int((last > other).sum()), int((last < other).sum())
    return Worth(
        start,
        len(curves),
        float(np.mean(first)),
        standard_error(first),
        float(np.mean(last)),
        standard_error(last.tolist()),
        quartiles(worth),
        quartiles(saved),
        worse / len(curves),
        float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, each one of the values (infinities have no mean)."""
    ordered = sorted(values)
    places = (math.ceil(share * len(ordered)) - 1 for share in (0.25, 0.5, 0.75))
    low, middle, high = (float(ordered[max(place, 0)]) for place in places)
    return low, middle, high


def table(found: Sequence[Worth], steps: int) -> str:
    """Text, one line a start."""
    rows: list[tuple[str, ...]] = [
        ("start", "at once, %", f"after {steps:,}, %", "worth, updates", "saved, %", "ends below", "sign test p")
    ]
    for one in found:
        rows.append(
            (
                one.start,
                f"{one.first:.1f} +- {one.first_error:.1f}",
                f"{one.last:.1f} +- {one.last_error:.1f}",
                f"{_number(one.worth[1])} ({_number(one.worth[0])} to {_number(one.worth[2])})",
                f"{_number(100 * one.saved[1])} ({_number(100 * one.saved[0])} to {_number(100 * one.saved[2])})",
                f"{100 * one.worse:.0f} %",
                f"{one.p_value:.2g}",
            )
        )
    return "\n".join(aligned(rows))


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def mean_curves(curves: Mapping[str, Sequence[Curve]]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each start: numbers of updates, mean accuracy in % and its standard error over networks."""
    found = {}
    for name, own in curves.items():
        values = 100 * np.array([curve.top1 for curve in own])
        errors = np.array([standard_error(column.tolist()) for column in values.T])
        found[name] = (np.array(own[0].steps), values.mean(axis=0), errors)
    return found

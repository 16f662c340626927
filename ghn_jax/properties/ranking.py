"""How well scores rank networks: Kendall's tau, regret of the best ones, bootstrap intervals."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from ghn_jax.text_tables import aligned

BOOTSTRAPS = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Ranked:
    """Of one kind of score.

    Attributes:
      name: of the score.
      tau: Kendall's tau-b with the truth.
      low, high: its 95 % interval over networks drawn with repetition.
      regret: truth of the best network less that of the best among the ten of the highest scores, in its own units.
      seconds: that a network's score takes; NaN if that was not measured.
    """

    name: str
    tau: float
    low: float
    high: float
    regret: float
    seconds: float


def rank(
    name: str,
    scores: Sequence[float],
    truth: Sequence[float],
    *,
    less_is_better: bool = False,
    seconds: float = float("nan"),
    top: int = 10,
    seed: int = 0,
) -> Ranked:
    """Compares scores with the truth.

    Args:
      name: of the score.
      scores: one a network; those that are not finite rank last.
      truth: of the property.
      less_is_better: whether small values are the best ones (for the regret).
      seconds: that a score takes.
      top: networks that are looked at for the regret.
      seed: of the bootstrap.

    Raises:
      ValueError: for unequally many, fewer than two, or a truth that is not finite.
    """
    found, wanted = np.array(scores, np.float64), np.array(truth, np.float64)
    if found.shape != wanted.shape or len(wanted) < 2 or not np.isfinite(wanted).all():
        raise ValueError(
            f"ranking {name!r} needs as many scores as finite truths, two or more, got {found.shape} and {wanted.shape}"
        )
    usable = found[np.isfinite(found)]
    worst = (usable.max() + 1 if less_is_better else usable.min() - 1) if len(usable) else 0.0
    found = np.where(np.isfinite(found), found, worst)
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(wanted), size=len(wanted)) for _ in range(BOOTSTRAPS)]
    taus = [tau(found[rows], wanted[rows]) for rows in draws]
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    sign = -1 if less_is_better else 1
    best = np.argsort(-sign * found, kind="stable")[:top]
    regret = (sign * wanted).max() - (sign * wanted)[best].max()
    return Ranked(name, tau(found, wanted), float(low), float(high), float(regret), seconds)


def tau(scores: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b; 0 for scores that are all the same."""
    found: Any = kendalltau(scores, truth)
    return 0.0 if np.isnan(found.statistic) else float(found.statistic)


def ladder(found: Sequence[Ranked]) -> str:
    """A table, the best last."""
    rows: list[tuple[str, ...]] = [("score", "tau", "95 %", "regret of the ten", "s a network")]
    for one in sorted(found, key=lambda one: one.tau):
        interval = f"{one.low:.2f} to {one.high:.2f}"
        seconds = "-" if np.isnan(one.seconds) else f"{one.seconds:.3g}"
        rows.append((one.name, f"{one.tau:.2f}", interval, f"{one.regret:.2f}", seconds))
    return "\n".join(aligned(rows, left=1))

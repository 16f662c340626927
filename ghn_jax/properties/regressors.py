"""Properties of networks from embeddings: support vector regression by the paper's protocol, gradient boosting."""

import dataclasses
import itertools
from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.svm import SVR

from ghn_jax.properties.ranking import tau

SVR_GRID = tuple(itertools.product((1, 10, 50, 100, 200, 500, 1000), (1 / 32, 0.05, 0.1, 0.2, 0.5), (0.05, 0.1, 0.2)))
"""C, gamma and epsilon (paper, section 4.3; gamma 1 / 32 is one over the width of the embeddings)."""

FOLDS = 5
LEAST = 2 * FOLDS


class Regressor(Protocol):
    """Predicts a property, which is fitted before."""

    def fit(self, features: np.ndarray, truth: np.ndarray) -> "Regressor":
        """Learns from features (G, D) and the property (G,)."""
        ...

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The property (G,) for features (G, D)."""
        ...


@dataclasses.dataclass
class SupportVectors:
    """Support vector regression, RBF; its constants by R^2 over five contiguous folds after a permutation.

    Targets stay in their own units and features as they are (paper). Constants that are within rounding of each other
    are decided by their order in the grid.

    Attributes:
      seed: of the permutation; None for none.
      chosen: C, gamma and epsilon once fitted.
    """

    seed: int | None = 0
    chosen: tuple[float, float, float] | None = None

    def fit(self, features: np.ndarray, truth: np.ndarray) -> "SupportVectors":
        """As `Regressor.fit`."""
        x, y = checked(features, truth)
        order = np.arange(len(y)) if self.seed is None else np.random.default_rng(self.seed).permutation(len(y))
        scores = [self._score(constants, x[order], y[order]) for constants in SVR_GRID]
        self.chosen = SVR_GRID[int(np.argmax(scores))]
        self._model = _svr(self.chosen).fit(x, y)
        return self

    def _score(self, constants: tuple[float, float, float], x: np.ndarray, y: np.ndarray) -> float:
        found = cross_val_predict(_svr(constants), x, y, cv=KFold(FOLDS))
        return 1 - float(((found - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())

    def predict(self, features: np.ndarray) -> np.ndarray:
        """As `Regressor.predict`."""
        if self.chosen is None:
            raise ValueError("support vectors must be fitted before they predict")
        return np.asarray(self._model.predict(np.asarray(features)))


def _svr(constants: tuple[float, float, float]) -> Any:
    c, gamma, epsilon = constants
    return SVR(C=c, gamma=gamma, epsilon=epsilon)  # type: ignore[arg-type]


@dataclasses.dataclass
class Boosting:
    """Gradient-boosted trees with the library's defaults but for smaller steps and a part of the rows for each tree.

    Attributes:
      seed: of the rows.
    """

    seed: int = 0

    def fit(self, features: np.ndarray, truth: np.ndarray) -> "Boosting":
        """As `Regressor.fit`."""
        x, y = checked(features, truth)
        model = GradientBoostingRegressor(n_estimators=300, learning_rate=0.05, subsample=0.7, random_state=self.seed)
        self._model = model.fit(x, y)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """As `Regressor.predict`."""
        return np.asarray(self._model.predict(np.asarray(features)))


def checked(features: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets in double precision.

    Raises:
      ValueError: for unequally many, too few, or numbers that are not finite.
    """
    x, y = np.asarray(features, np.float64), np.asarray(truth, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) < LEAST:
        raise ValueError(
            f"a regressor needs features (G, D) and (G,) targets, at least {LEAST}, got {x.shape}, {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features and targets of a regressor must be finite")
    return x, y


def score(regressor: Regressor, features: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b of what a fitted regressor predicts."""
    return tau(regressor.predict(features), np.asarray(truth))

"""Ranking, regressors and the neural predictor on made data."""

import numpy as np
import pytest
from scipy.stats import kendalltau
from small_graphs import mixed_graph

from ghn_jax.deepnets.demo_space import DemoStream
from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.properties import Boosting, NeuralPredictor, SupportVectors, ladder, rank, score
from ghn_jax.properties.regressors import SVR_GRID

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 5))
PROPERTY = 3 * FEATURES[:, 0] - FEATURES[:, 1] ** 2 + 50


def test_scores_rank_by_tau_and_regret() -> None:
    noisy = PROPERTY + RNG.normal(size=60)
    found = rank("noisy", noisy.tolist(), PROPERTY.tolist(), seconds=0.25)
    assert found.tau == pytest.approx(kendalltau(noisy, PROPERTY)[0])
    assert found.low < found.tau < found.high
    assert found.regret >= 0
    perfect = rank("perfect", PROPERTY.tolist(), PROPERTY.tolist())
    assert (perfect.tau, perfect.regret) == (pytest.approx(1.0), 0.0)
    opposite = rank("opposite", (-PROPERTY).tolist(), PROPERTY.tolist(), top=1)
    assert opposite.regret == pytest.approx(np.ptp(PROPERTY))
    less = rank("seconds", (-PROPERTY).tolist(), (-PROPERTY).tolist(), less_is_better=True, top=1)
    assert less.regret == 0.0
    lines = ladder([perfect, found, opposite]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["opposite", "noisy", "perfect"]
    assert lines[1].split()[-1] == "-"


def test_scores_that_are_not_finite_rank_last() -> None:
    truth = [1.0, 2.0, 3.0, 4.0]
    assert rank("a", [float("nan"), 2.0, 3.0, 4.0], truth).tau == pytest.approx(1.0)
    assert rank("a", [1.0, 2.0, 3.0, float("inf")], truth, top=1).regret == 1.0
    assert rank("same", [1.0, 1.0, 1.0, 1.0], truth).tau == 0.0
    with pytest.raises(ValueError, match="as many scores as finite truths"):
        rank("a", [1.0], [1.0])
    with pytest.raises(ValueError, match="ranking 'a' needs"):
        rank("a", [1.0, 2.0], [1.0, float("nan")])


@pytest.mark.parametrize("regressor", [SupportVectors(), Boosting()], ids=["svr", "boosting"])
def test_regressors_learn(regressor: SupportVectors | Boosting) -> None:
    fitted = regressor.fit(FEATURES[:40], PROPERTY[:40])
    assert score(fitted, FEATURES[40:], PROPERTY[40:]) > 0.5
    again = type(regressor)().fit(FEATURES[:40], PROPERTY[:40])
    np.testing.assert_array_equal(again.predict(FEATURES[40:]), fitted.predict(FEATURES[40:]))
    if isinstance(fitted, SupportVectors):
        assert fitted.chosen in SVR_GRID


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        SupportVectors().fit(FEATURES[:4], PROPERTY[:4])
    with pytest.raises(ValueError, match="must be finite"):
        Boosting().fit(FEATURES, np.full(60, np.nan))
    with pytest.raises(ValueError, match="must be fitted"):
        SupportVectors().predict(FEATURES)
    with pytest.raises(ValueError, match="as many graphs as finite targets, at least 10"):
        NeuralPredictor().fit([mixed_graph()], [1.0])


def small_graphs(first: int, count: int) -> list[ArchGraph]:
    """Small networks of the demo's space."""
    stream = DemoStream("train", 0, first, width=8, meta_batch=1)
    return [next(stream).graphs[0] for _ in range(count)]


def test_the_neural_predictor_learns_from_graphs() -> None:
    training, test = small_graphs(0, 40), small_graphs(1_000, 20)

    def share(graph: ArchGraph) -> float:
        return float(np.isin(graph.node_types, [Primitive.SEP_CONV, Primitive.DIL_CONV]).mean())

    predictor = NeuralPredictor(epochs=40, learning_rate=3e-3).fit(training, [share(graph) for graph in training])
    assert predictor.score(test, [share(graph) for graph in test]) > 0.5
    alone = predictor.predict(test[:1])
    np.testing.assert_allclose(alone, predictor.predict(test)[:1], rtol=1e-4)

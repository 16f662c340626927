"""Properties of architectures: ground truth, regressors on embeddings, rankings, results of the release."""

from ghn_jax.properties.neural_predictor import NeuralPredictor
from ghn_jax.properties.ranking import Ranked, ladder, rank
from ghn_jax.properties.regressors import Boosting, Regressor, SupportVectors, score
from ghn_jax.properties.release_files import published_table, published_taus, read_released
from ghn_jax.properties.truth import Truth, make_truth, read_truth

__all__ = [
    "Boosting",
    "NeuralPredictor",
    "Ranked",
    "Regressor",
    "SupportVectors",
    "Truth",
    "ladder",
    "make_truth",
    "published_table",
    "published_taus",
    "rank",
    "read_released",
    "read_truth",
    "score",
]

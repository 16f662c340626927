"""Accuracy of predicted parameters on architectures that were never trained on."""

from ghn_jax.evaluation.api import Evaluation, EvaluationConfig, evaluate
from ghn_jax.evaluation.bn_statistics import reestimate_statistics
from ghn_jax.evaluation.score_table import Score, read_scores, summary_table

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "Score",
    "evaluate",
    "read_scores",
    "reestimate_statistics",
    "summary_table",
]

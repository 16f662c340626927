"""Accuracy of predicted parameters on architectures that were never trained on."""

from ghn_jax.evaluation.api import Evaluation as Evaluation
from ghn_jax.evaluation.api import EvaluationConfig as EvaluationConfig
from ghn_jax.evaluation.api import evaluate as evaluate
from ghn_jax.evaluation.bn_statistics import reestimate_statistics as reestimate_statistics

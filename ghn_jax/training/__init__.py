"""Training of target networks from any start, and what a start is worth."""

from ghn_jax.training.config import NetTrainConfig
from ghn_jax.training.gradinit import gradinit
from ghn_jax.training.mimetic import mimetic
from ghn_jax.training.optimiser import NetOptimiserConfig
from ghn_jax.training.reinitialise import reinitialise
from ghn_jax.training.starts import STARTS, Given, start, start_params
from ghn_jax.training.task import Curve, Net, train_networks
from ghn_jax.training.worth import Worth, compare

__all__ = [
    "STARTS",
    "Curve",
    "Given",
    "Net",
    "NetOptimiserConfig",
    "NetTrainConfig",
    "Worth",
    "compare",
    "gradinit",
    "mimetic",
    "reinitialise",
    "start",
    "start_params",
    "train_networks",
]

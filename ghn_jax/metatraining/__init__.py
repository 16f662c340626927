"""Meta-training of graph hypernetworks on real images, and their evaluation on unseen architectures."""

from ghn_jax.metatraining.config import ImageConfig, RunConfig, TrainConfig
from ghn_jax.metatraining.config_files import load_config
from ghn_jax.metatraining.failures import TooManySkippedError
from ghn_jax.metatraining.loop import TrainResult, train
from ghn_jax.metatraining.optimisation import OptimiserConfig, TrainState
from ghn_jax.metatraining.presets import PRESETS
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.metatraining.step import MetaStep, StepReport
from ghn_jax.metatraining.validation import final_evaluation

__all__ = [
    "ImageConfig",
    "MetaStep",
    "OptimiserConfig",
    "PRESETS",
    "RunConfig",
    "StepReport",
    "TooManySkippedError",
    "TrainConfig",
    "TrainResult",
    "TrainState",
    "final_evaluation",
    "load_config",
    "load_trained",
    "train",
]

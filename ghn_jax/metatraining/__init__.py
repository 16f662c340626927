"""Meta-training of graph hypernetworks on real images, and their evaluation on unseen architectures."""

from ghn_jax.metatraining.config import PRESETS, ImageConfig, RunConfig, TrainConfig, load_config
from ghn_jax.metatraining.failures import TooManySkippedError
from ghn_jax.metatraining.loop import TrainResult, load_trained, train
from ghn_jax.metatraining.optimisation import OptimiserConfig, TrainState
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

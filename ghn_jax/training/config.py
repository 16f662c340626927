"""Configuration of the training of networks."""

import dataclasses
from typing import Literal

from ghn_jax.fields import COUNT, SEED, WORKERS, Range, check_fields, refuse_idle
from ghn_jax.training.optimiser import NetOptimiserConfig

_RANGES = {
    "steps": COUNT,
    "batch_size": Range(1, 1_000_000),
    "cutout": Range(0, 4_096),
    "drop_path": Range(0, 1, whole=False, below=True),
    "auxiliary_weight": Range(0, whole=False),
    "test_images": COUNT,
    "test_batch": Range(1, 1_000_000),
    "bn_batches": COUNT,
    "threads": Range(1, WORKERS.high),
    "seed": SEED,
    "checkpoint_minutes": Range(0, whole=False),
}


@dataclasses.dataclass(frozen=True, slots=True)
class NetTrainConfig:
    """How networks are trained, the same for all of them.

    Attributes:
      steps: updates.
      batch_size: images B, the same ones for all networks at the same update.
      optimiser: updates and their schedule.
      cutout: side of the square that is cut out of each image, at 32 x 32; 0 cuts nothing.
      drop_path: probability of dropping an op's output for one image at the end; rises from 0 over the run.
      auxiliary_weight: of the loss of an auxiliary head (DARTS: 0.4); 0 for none.
      image_split: what accuracy is measured on.
      test_images: of those; default: all.
      test_batch: images of one batch, over which a network normalises with bn "batch".
      bn: statistics of batch normalisation when accuracy is measured: of the batch, re-estimated over training batches,
        or those that a model keeps while it trains (no network of DeepNets-1M keeps any).
      bn_batches: training batches that statistics are re-estimated over.
      curve: updates after which accuracy is measured, beside before the first and after the last one.
      threads: networks that one device trains side by side.
      seed: of images, starts and dropout.
      checkpoint_minutes: between checkpoints.
    """

    steps: int = 1_000
    batch_size: int = 96
    optimiser: NetOptimiserConfig = dataclasses.field(default_factory=NetOptimiserConfig)
    cutout: int = 0
    drop_path: float = 0.0
    auxiliary_weight: float = 0.0
    image_split: Literal["val", "test"] = "test"
    test_images: int | None = None
    test_batch: int = 64
    bn: Literal["batch", "reestimated", "running"] = "batch"
    bn_batches: int = 100
    curve: tuple[int, ...] = ()
    threads: int = 2
    seed: int = 0
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        if self.bn != "reestimated":
            refuse_idle(self, ("bn_batches",), f"with bn {self.bn!r}")
        outside = [step for step in self.curve if not 0 <= step <= self.steps]
        if outside:
            raise ValueError(f"curve must lie within the {self.steps} updates, got {outside[0]}")

    @property
    def measured(self) -> tuple[int, ...]:
        """Numbers of updates after which accuracy is measured, in order."""
        return tuple(sorted({0, self.steps, *self.curve}))


def geometric(steps: int, first: int = 10, factor: float = 2**0.5) -> tuple[int, ...]:
    """Numbers from `first` to `steps` that grow by a factor: many points where curves are steep."""
    found, value = [], float(first)
    while value < steps:
        found.append(round(value))
        value *= factor
    return tuple(dict.fromkeys((*found, steps)))

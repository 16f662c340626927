"""The GHN's optimiser (paper, section 4.1): clip, L2, Adam, a schedule by epochs, updates skipped when not finite.

That of GHN-3 too (docs/method.md, section 17): clip, AdamW, a rise of the learning rate and a cosine, both by epochs.
"""

import collections
import dataclasses
from typing import Any, Literal

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ghn_jax.fields import COUNT, COUNT_OR_NONE, Range, check_fields, refuse_idle

Params = Any
"""Pytree of the GHN's parameters."""

FIRST_RATE, RISING_EPOCHS = 1e-5, 4
"""Of the schedule "cosine-warmup"."""

RMS_OF_ADAM = 0.2
"""Root mean square of Adam's steps, about (Liu et al., 2025): Muon's have the same, so that one rate serves both."""

_EPOCHS = 1_000_000
_OF_STEPS = ("milestones", "decay")
_RANGES = {
    "epochs": Range(1, _EPOCHS),
    "steps": COUNT,
    "learning_rate": Range(0, whole=False, open=True),
    "milestones": Range(0, _EPOCHS),
    "decay": Range(0, 1, whole=False, open=True),
    "warmup_steps": COUNT_OR_NONE,
    "l2": Range(0, whole=False),
    "weight_decay": Range(0, whole=False),
    "norm_penalty": Range(0, whole=False),
    "clip": Range(0, whole=False, open=True),
    "average": Range(0, 1, whole=False, below=True),
    "label_smoothing": Range(0, 1, whole=False, below=True),
    "max_skipped": Range(0, 1, whole=False),
}


@dataclasses.dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """How the GHN is updated.

    Attributes:
      epochs: passes over the training images.
      steps: updates; ends the run before `epochs` do. None: epochs decide.
      learning_rate: at the start.
      method: adam, or muon: for kernels orthogonalised momentum (Jordan et al., 2024) of the size of Adam's steps, for
        everything else Adam with Nesterov's momentum.
      milestones: epochs at which the learning rate is multiplied by `decay`.
      decay: factor at a milestone.
      schedule: "steps" (by milestones), "cosine" (to 0 over the run) or "cosine-warmup" (GHN-3: one rate an epoch, up
        over four epochs, then down to 0 as a cosine; `warmup_steps` is not used).
      warmup_steps: updates over which the learning rate rises to its full value.
      l2: factor of the parameters that is added to the clipped gradient (coupled, not AdamW).
      weight_decay: factor of the parameters that is added to Adam's direction (decoupled, AdamW).
      norm_penalty: factor of the norms of predicted tensors, which are added to each network's loss (GHN-3: 3e-5).
      clip: largest global norm of the gradient.
      average: decay of the moving average of the weights, which is then what is validated, evaluated and shared; 0 for
        none. Over the first updates the decay is smaller: at most (1 + n) / (10 + n) after n of them.
      label_smoothing: of the cross-entropy (ImageNet: 0.1).
      max_skipped: share of updates that may be skipped because of a loss or gradient that is not finite.
    """

    epochs: int = 300
    steps: int | None = None
    learning_rate: float = 1e-3
    method: Literal["adam", "muon"] = "adam"
    milestones: tuple[int, ...] = (200, 250)
    decay: float = 0.1
    schedule: Literal["steps", "cosine", "cosine-warmup"] = "steps"
    warmup_steps: int = 0
    l2: float = 1e-5
    weight_decay: float = 0.0
    norm_penalty: float = 0.0
    clip: float = 5.0
    average: float = 0.0
    label_smoothing: float = 0.0
    max_skipped: float = 0.05

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        idle = {"steps": (), "cosine": _OF_STEPS, "cosine-warmup": (*_OF_STEPS, "warmup_steps")}[self.schedule]
        refuse_idle(self, idle, f"with the schedule {self.schedule!r}")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates of the whole run."""
        by_epochs = self.epochs * steps_per_epoch
        return by_epochs if self.steps is None else min(self.steps, by_epochs)

    def rates(self, steps_per_epoch: int) -> optax.Schedule:
        """Learning rate of the update after so many updates, in float32 as optax computes it.

        Raises:
          ValueError: for a "cosine-warmup" that ends before the rates fall.
        """
        if self.schedule == "cosine-warmup":
            return _rates_by_epochs(self.learning_rate, self.total_steps(steps_per_epoch), steps_per_epoch)
        if self.schedule == "cosine":
            decayed = optax.cosine_decay_schedule(self.learning_rate, self.total_steps(steps_per_epoch))
        else:
            boundaries = collections.Counter(milestone * steps_per_epoch for milestone in self.milestones)
            scales = {step: self.decay**times for step, times in boundaries.items()}
            decayed = optax.piecewise_constant_schedule(self.learning_rate, scales)
        if self.warmup_steps < 2:
            return decayed
        # The rise multiplies the whole schedule. optax.warmup_cosine_decay_schedule would begin the decay after it.
        rise = optax.linear_schedule(1 / self.warmup_steps, 1.0, self.warmup_steps - 1)
        return lambda step: rise(step) * decayed(step)


def _rates_by_epochs(learning_rate: float, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """GHN-3's rates. The cosine begins at its second point: the first is where the rise ends."""
    epochs = -(-total_steps // steps_per_epoch)
    falling = epochs - RISING_EPOCHS - 1
    if falling < 1:
        raise ValueError(
            f"optimiser: the schedule cosine-warmup needs at least {RISING_EPOCHS + 2} epochs, got {epochs} "
            f"({total_steps} steps of {steps_per_epoch} an epoch)"
        )

    def rate(step: Any) -> jax.Array:
        epoch = jnp.asarray(step) // steps_per_epoch
        rising = FIRST_RATE + (learning_rate - FIRST_RATE) * epoch / RISING_EPOCHS
        progress = (epoch - RISING_EPOCHS - 1) / falling
        return jnp.where(epoch < RISING_EPOCHS, rising, learning_rate * (1 + jnp.cos(jnp.pi * progress)) / 2)

    return rate


@flax.struct.dataclass
class Averaged:
    """State of an optimiser, and the moving average of the parameters that it changes."""

    moments: optax.OptState
    average: Params


@flax.struct.dataclass
class TrainState:
    """Everything that updates change.

    Attributes:
      params: of the GHN.
      moments: state of the optimiser, `Averaged` if there is a moving average.
      skipped: int32 (), updates left out because loss or gradient was not finite.
    """

    params: Params
    moments: optax.OptState | Averaged
    skipped: jax.Array

    @property
    def learned(self) -> Params:
        """The weights to use: the average, if there is one."""
        return self.moments.average if isinstance(self.moments, Averaged) else self.params


@flax.struct.dataclass
class UpdateReport:
    """Scalars of one update: global norm of the raw gradient, and whether the update was made."""

    gradient_norm: jax.Array
    finite: jax.Array


def direction(config: OptimiserConfig) -> optax.GradientTransformation:
    """Direction of descent, before the learning rate: clip the raw gradient, then L2, then Adam, then decoupled decay.

    The order is that of the releases: `clip_grad_norm_`, then `torch.optim.Adam(weight_decay=..)` or `AdamW`.
    """
    decay = [optax.add_decayed_weights(config.weight_decay)] if config.weight_decay else []
    if config.method == "muon":
        # optax gives steps downhill, with a rate; here the rate comes later and the direction is uphill.
        scale = optax.contrib.muon(-1.0, consistent_rms=RMS_OF_ADAM, muon_weight_dimension_numbers=_kernels)
    else:
        scale = optax.scale_by_adam()
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.add_decayed_weights(config.l2), scale, *decay)


def _kernels(params: Params) -> Any:
    """Axes of what Muon takes as matrices: kernels, whose first axis is that of the inputs; None for anything else."""

    def axes(path: tuple[Any, ...], leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not path[-1].key.endswith("kernel"):
            return None
        return optax.contrib.MuonDimensionNumbers((0,), tuple(range(1, leaf.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)


def initial_state(config: OptimiserConfig, params: Params) -> TrainState:
    """State before the first update."""
    moments = direction(config).init(params)
    if config.average:
        moments = Averaged(moments, jax.tree.map(jnp.array, params))
    return TrainState(params, moments, jnp.zeros((), jnp.int32))


def update(
    state: TrainState, gradient: Params, loss: jax.Array, rate: jax.Array, config: OptimiserConfig
) -> tuple[TrainState, UpdateReport]:
    """One update, or the same state with `skipped` counted if the loss () or the gradient is not finite."""
    # optax.apply_if_finite looks at the gradient alone (here the loss and the norm, which may overflow, count too), and
    # makes the update all the same once a number of them in a row was not finite.
    chex.assert_trees_all_equal_shapes(state.params, gradient)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    before = state.moments.moments if isinstance(state.moments, Averaged) else state.moments
    steps, moments = direction(config).update(gradient, before, state.params)
    params = jax.tree.map(lambda p, s: p - rate * s, state.params, steps)
    if isinstance(state.moments, Averaged):
        count = optax.tree.get_all_with_path(moments, "count")[0][1]
        decay = jnp.minimum(config.average, (1 + count) / (10 + count))
        moments = Averaged(moments, optax.incremental_update(params, state.moments.average, 1 - decay))
    made = TrainState(params, moments, state.skipped)
    left_out = TrainState(state.params, state.moments, state.skipped + 1)
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), made, left_out)
    return new, UpdateReport(gradient_norm=norm, finite=finite)

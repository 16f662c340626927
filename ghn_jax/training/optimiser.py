"""How the weights of one network are updated: clip, L2, SGD or Adam, decoupled decay, a schedule.

Every tensor is updated by a program of its own shape, so that nothing is compiled for a network as a whole.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ghn_jax.fields import COUNT_OR_NONE, Range, check_fields, refuse_idle
from ghn_jax.graphs.param_spec import Path

FlatParams = Mapping[Path, jax.Array]

_RANGES = {
    "learning_rate": Range(0, whole=False, open=True),
    "momentum": Range(0, 1, whole=False, below=True),
    "milestones": Range(0, 1, whole=False, open=True, below=True),
    "decay": Range(0, 1, whole=False, open=True),
    "warmup_steps": COUNT_OR_NONE,
    "l2": Range(0, whole=False),
    "weight_decay": Range(0, whole=False),
    "clip": Range(0, whole=False, open=True),
    "label_smoothing": Range(0, 1, whole=False, below=True),
}


@dataclasses.dataclass(frozen=True, slots=True)
class NetOptimiserConfig:
    """Optimiser of a network; the defaults are those of the networks of DeepNets-1M on CIFAR-10.

    Attributes:
      method: sgd (with momentum) or adam.
      learning_rate: at the start.
      momentum: of SGD.
      schedule: "cosine" (to 0 over the run), "steps" (by milestones) or "constant".
      every_epoch: whether the rate changes between epochs only.
      milestones: shares of the run after which the rate is multiplied by `decay`.
      decay: factor at a milestone.
      warmup_steps: updates over which the rate rises to its full value.
      l2: factor of the weights that is added to the clipped gradient.
      weight_decay: factor of the weights that is added to the step, times the rate (decoupled, AdamW).
      clip: largest global norm of the gradient; None for no limit.
      label_smoothing: of the cross-entropy.
    """

    method: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.025
    momentum: float = 0.9
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    every_epoch: bool = False
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    warmup_steps: int = 0
    l2: float = 3e-4
    weight_decay: float = 0.0
    clip: float | None = 5.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        if self.method == "adam":
            refuse_idle(self, ("momentum",), "with adam")
        if self.schedule != "steps":
            refuse_idle(self, ("milestones", "decay"), f"with the schedule {self.schedule!r}")
        if self.schedule == "constant":
            refuse_idle(self, ("every_epoch",), "with the schedule 'constant'")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.milestones)):
            raise ValueError(f"milestones must rise, got {self.milestones}")

    def rates(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Learning rate of the update after so many updates of a run of `total_steps`."""
        base: optax.Schedule
        if self.schedule == "cosine":
            base = optax.cosine_decay_schedule(self.learning_rate, total_steps)
        elif self.schedule == "steps":
            scales = {round(share * total_steps): self.decay for share in self.milestones}
            base = optax.piecewise_constant_schedule(self.learning_rate, scales)
        else:
            base = optax.constant_schedule(self.learning_rate)
        start = (lambda step: step // steps_per_epoch * steps_per_epoch) if self.every_epoch else (lambda step: step)
        if self.warmup_steps < 2:
            return lambda step: base(start(step))
        rise = optax.linear_schedule(1 / self.warmup_steps, 1.0, self.warmup_steps - 1)
        return lambda step: rise(step) * base(start(step))


def direction(config: NetOptimiserConfig) -> optax.GradientTransformation:
    """Direction of descent from the clipped gradient of one tensor, before the learning rate."""
    scale = optax.trace(config.momentum) if config.method == "sgd" else optax.scale_by_adam()
    return optax.chain(optax.add_decayed_weights(config.l2), scale, optax.add_decayed_weights(config.weight_decay))


def initial_moments(config: NetOptimiserConfig, params: FlatParams) -> dict[Path, Any]:
    """State of the optimiser before the first update, by tensor."""
    init = _programs(config)[0]
    return {path: init(param) for path, param in params.items()}


def update(
    config: NetOptimiserConfig,
    params: FlatParams,
    moments: Mapping[Path, Any],
    found: tuple[jax.Array, FlatParams],
    rate: jax.Array,
) -> tuple[dict[Path, jax.Array], dict[Path, Any], jax.Array]:
    """One update of a network; one whose loss () or gradient is not finite changes nothing.

    The buffers of weights and moments are given up.

    Args:
      config: of the optimiser.
      params: weights by path.
      moments: state of the optimiser by path.
      found: loss of the batch, and its gradient for each of the weights.
      rate: learning rate, float32 ().

    Returns:
      Weights, state of the optimiser, and whether the update was made, bool ().
    """
    (_, one), (loss, gradients) = _programs(config), found
    total = jnp.zeros((), jnp.float32, device=loss.device)
    for path in sorted(params):
        total = _add_squares(total, gradients[path])
    scale, finite = _scale_of(total, loss, config.clip)
    new, states = {}, {}
    for path, param in params.items():
        new[path], states[path] = one(param, moments[path], gradients[path], (scale, finite, rate))
    return new, states, finite


@functools.cache
def _programs(config: NetOptimiserConfig) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled: state of the optimiser for a tensor, and the update of a tensor."""
    transformation = direction(config)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def one(
        param: jax.Array, moments: Any, gradient: jax.Array, factors: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, Any]:
        scale, finite, rate = factors
        step, after = transformation.update(scale.astype(gradient.dtype) * gradient, moments, param)
        new = (optax.apply_updates(param, optax.tree.scale(-rate, step)), after)
        return jax.tree.map(lambda made, kept: jnp.where(finite, made, kept), new, (param, moments))

    return jax.jit(transformation.init), one


@functools.partial(jax.jit, donate_argnums=0)
def _add_squares(total: jax.Array, gradient: jax.Array) -> jax.Array:
    return total + jnp.sum(jnp.square(gradient.astype(jnp.float32)))


@functools.partial(jax.jit, static_argnums=2)
def _scale_of(squares: jax.Array, loss: jax.Array, clip: float | None) -> tuple[jax.Array, jax.Array]:
    """What the gradient is multiplied with, and whether norm and loss are finite."""
    norm = jnp.sqrt(squares)
    scale = jnp.ones_like(norm) if clip is None else jnp.where(norm < clip, 1.0, clip / norm)
    return scale, jnp.isfinite(norm) & jnp.isfinite(loss)

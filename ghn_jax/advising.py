"""`advise`: which start a model should be trained from, found by trying each for a few updates.

Stands beside the packages because it joins three of them: the tracer lists what a model needs, starts give it, and the
trainer of networks tries it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from ghn_jax.deepnets import NetworkArgs, network_graph
from ghn_jax.fields import COUNT, Range, check_number
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet.api import GHNSource, resolve_ghn
from ghn_jax.images import Batch
from ghn_jax.keys import RANDOM_INITIALISATION, named_key
from ghn_jax.networks.runner import Runner
from ghn_jax.text_tables import aligned
from ghn_jax.training.networks import Flat, Regularisation, Trainable, gradient_on, trainable
from ghn_jax.training.optimiser import NetOptimiserConfig, initial_moments, update
from ghn_jax.training.starts import STARTS, Given, start_params

OWN = "own"
"""The start that a model itself has; for networks of DeepNets-1M that of He et al."""

TRIED = (OWN, "predicted", "predicted+noise", "predicted+orth")


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What trying a start showed, on images that it was not trained on.

    Attributes:
      start: its name.
      loss_at_once, top1_at_once: cross-entropy and accuracy in [0, 1] before the first update.
      loss, top1: after the last one.
      skipped: updates left out because loss or gradient was not finite.
    """

    start: str
    loss_at_once: float
    top1_at_once: float
    loss: float
    top1: float
    skipped: int


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """Which start to use, and why.

    Attributes:
      start: the one whose loss was least.
      evidence: of every start, in the order in which they were tried.
      steps: updates that each was tried for.
      params: weights of the advised start, before any update; a nested dictionary.
    """

    start: str
    evidence: tuple[Evidence, ...]
    steps: int
    params: Any

    @property
    def predicted_hurts(self) -> bool:
        """Whether the model's own start was better than every predicted one."""
        return not self.start.startswith("predicted")

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("start", "loss", "top-1, %", f"loss after {self.steps}", "top-1, %", "")]
        for one in self.evidence:
            before = (f"{one.loss_at_once:.3f}", f"{100 * one.top1_at_once:.1f}")
            after = (f"{one.loss:.3f}", f"{100 * one.top1:.1f}")
            rows.append((one.start, *before, *after, "<- use this" if one.start == self.start else ""))
        return "\n".join(aligned(rows))


def advise(
    model: NetworkArgs | nn.Module,
    images: Any,
    labels: Any,
    ghn: GHNSource = None,
    *,
    starts: Sequence[str] = TRIED,
    steps: int = 50,
    batch_size: int = 64,
    optimiser: NetOptimiserConfig | None = None,
    held_out: float = 0.25,
    noise: float = 3e-5,
    seed: int = 0,
) -> Advice:
    """Tries each start for a few updates on the same batches, and advises the one whose held-out loss is least.

    A hypernetwork's prediction is no good start for every model: this says so before hours are spent.

    Args:
      model: a Flax linen model, or arguments of a network of DeepNets-1M.
      images: normalised, (N, H, W, 3).
      labels: (N,), whole numbers.
      ghn: a loaded hypernetwork, a source for `load_ghn`, or None for the packaged default.
      starts: names of `ghn_jax.training.STARTS`, or ``own``.
      steps: updates that each start is tried for.
      batch_size: images B of an update and of a batch that is measured.
      optimiser: how the model is going to be trained; default: SGD at 0.025 with momentum, clipped.
      held_out: share of the images that losses are measured on.
      noise: of ``predicted+noise`` and ``predicted+orth``.
      seed: of the split, the batches and the starts.

    Returns:
      The advice; printed, it is a table.

    Raises:
      ValueError: for an unknown start, too few images, or a model that cannot be traced.
    """
    check_number("steps", steps, COUNT)
    check_number("held_out", held_out, Range(0, 1, whole=False, open=True, below=True))
    unknown = [name for name in starts if name != OWN and name not in STARTS]
    if unknown or not starts:
        raise ValueError(f"starts must be {OWN} or some of {', '.join(STARTS)}, got {', '.join(starts) or 'none'}")
    pixels, classes = np.asarray(images), np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(pixels))
    kept = max(round(held_out * len(order)), 1)
    training, measured = order[kept:], order[:kept]
    if pixels.ndim != 4 or pixels.shape[:1] != classes.shape or len(training) < batch_size:
        raise ValueError(
            f"advise needs images (N, H, W, 3), as many labels, and at least a batch of {batch_size} beside those held "
            f"out, got {pixels.shape} and {classes.shape}"
        )
    rng = np.random.default_rng((seed, 1))
    chosen = [rng.choice(training, batch_size, replace=False) for _ in range(steps)]
    size = min(batch_size, len(measured))
    held = [measured[i : i + size] for i in range(0, len(measured) - size + 1, size)]
    trial = _Trial(
        model,
        optimiser or _CONSTANT,
        batches=[(jnp.asarray(pixels[rows]), jnp.asarray(classes[rows])) for rows in chosen],
        measured=[(jnp.asarray(pixels[rows]), jnp.asarray(classes[rows])) for rows in held],
        seed=seed,
    )
    predicts = any(name.startswith("predicted") for name in starts)
    given = Given(resolve_ghn(ghn) if predicts else None, noise, gradient=trial.gradient)
    evidence = []
    best: Flat = {}
    for name in starts:
        params = trial.params(name, given)
        evidence.append(trial.run(name, params))
        if min(evidence, key=_rank) is evidence[-1]:
            best = params
    chosen = min(evidence, key=_rank)
    return Advice(chosen.start, tuple(evidence), steps, traverse_util.unflatten_dict(best))


_CONSTANT = NetOptimiserConfig(schedule="constant")


def _rank(one: Evidence) -> float:
    return one.loss if np.isfinite(one.loss) else float("inf")


class _Trial:
    """A model and the batches that its starts are tried on."""

    def __init__(
        self,
        model: NetworkArgs | nn.Module,
        optimiser: NetOptimiserConfig,
        *,
        batches: Sequence[Batch],
        measured: Sequence[Batch],
        seed: int,
    ) -> None:
        self._optimiser, self._batches, self._measured, self._seed = optimiser, batches, measured, seed
        shape = batches[0][0].shape[1:]
        self._own: Trainable = trainable(model, Regularisation(optimiser.label_smoothing), Runner(), shape[0])
        self.gradient = gradient_on(self._own, batches[0])
        self.graph = network_graph(model) if isinstance(model, NetworkArgs) else trace(model, shape)

    def params(self, start: str, given: Given) -> Flat:
        """All weights of the model by a start; leaves that it does not give are the model's own."""
        key = named_key(self._seed, RANDOM_INITIALISATION)
        own = self._own.new_params(key)
        if start == OWN:
            return own or start_params("he", self.graph, key, given)
        return {**own, **start_params(start, self.graph, key, given)}

    def run(self, name: str, params: Flat) -> Evidence:
        """Tries a start."""
        before = self._measure(params)
        current, statistics, skipped = {path: jnp.array(leaf) for path, leaf in params.items()}, self._own.statistics, 0
        moments = initial_moments(self._optimiser, current)
        rates = self._optimiser.rates(len(self._batches), len(self._batches))
        for number, batch in enumerate(self._batches):
            key = jax.random.fold_in(jax.random.key(self._seed), number)
            found = self._own.gradients(current, statistics, batch, key)
            both = (found.loss, found.gradients)
            current, moments, made = update(self._optimiser, current, moments, both, jnp.float32(rates(number)))
            statistics, skipped = found.statistics, skipped + int(not made)
        return Evidence(name, *before, *self._measure(current), skipped)

    def _measure(self, params: Flat) -> tuple[float, float]:
        """Loss and accuracy on the images held out, batch normalisation by the statistics of their batches."""
        network = self._own.network(params)
        losses, right = [], []
        for pixels, labels in self._measured:
            logits = network.logits(pixels).astype(jnp.float32)
            losses.append(float(optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()))
            right.append(float((logits.argmax(axis=1) == labels).mean()))
        return float(np.mean(losses)), float(np.mean(right))

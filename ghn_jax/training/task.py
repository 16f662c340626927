"""Networks side by side as one task of the trainer: the same batch for all of them, an update of each."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.accuracy import mean_top_k
from ghn_jax.evaluation.repeated import RepeatedBatches, training_images
from ghn_jax.graphs import ArchGraph
from ghn_jax.images import Batch, ImageSet, ImageStream, eval_batches, train_batches
from ghn_jax.images.augment import cutout
from ghn_jax.keys import DROPOUT, OWN_WEIGHTS, named_key
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.callbacks import Callback, Decision, Log, SaveEvery, Update
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.runs.progress import Reporter
from ghn_jax.runs.trainer import StepOutput, Trainer, by_number
from ghn_jax.threads import shares, side_by_side
from ghn_jax.training.config import NetTrainConfig
from ghn_jax.training.networks import Flat, Regularisation, Trainable, flat, trainable
from ghn_jax.training.optimiser import initial_moments, update

NetStates = dict[str, dict[str, Any]]
"""Of every network: ``params`` and ``moments`` as nested dictionaries, ``statistics``, ``skipped`` int32 ()."""

RISE = 20
"""Equal steps in which the probability of drop-path rises: each needs programs of its own."""

_TOP1 = "top1/"


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """A network to train.

    Attributes:
      name: of it and its start; unique, no slash.
      model: arguments of a network of DeepNets-1M, or a linen model.
      graph: of it.
      params: where it starts, by path.
    """

    name: str
    model: NetworkArgs | nn.Module
    graph: ArchGraph
    params: Mapping[tuple[str, ...], jax.Array]


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """How the accuracy of a network rose.

    Attributes:
      name: of the network.
      steps: numbers of updates, from 0 on.
      top1: accuracy in [0, 1] after each of them.
      skipped: updates left out because loss or gradient was not finite.
    """

    name: str
    steps: tuple[int, ...]
    top1: tuple[float, ...]
    skipped: int


def train_networks(
    nets: Sequence[Net],
    images: ImageSet | ImageStream,
    config: NetTrainConfig,
    folder: pathlib.Path,
    reporter: Reporter | None = None,
) -> tuple[list[Curve], dict[str, Flat]]:
    """Trains networks side by side, or goes on where a run in the same folder stopped, bit for bit.

    Args:
      nets: networks and their starts.
      images: that all of them are trained on.
      config: how.
      folder: of the run.
      reporter: where lines about the run go; default: the log.

    Returns:
      A curve of each network, in order, and its weights by its name, as they are after the last update.

    Raises:
      ValueError: for two networks of one name, a name with a slash, or where the trainer does.
    """
    names = [net.name for net in nets]
    if len(set(names)) < len(names) or any("/" in name for name in names):
        raise ValueError(f"networks need names of their own without a slash, got {names}")
    batches = train_batches(images, config.batch_size, config.seed)
    try:
        task = _Task(nets, images.image_size, batches.steps_per_epoch, config)
        initial = task.initial()
        outcome = Trainer(
            task.step,
            initial,
            by_number(batches.batch),
            [_Measure(task, initial, images, config), SaveEvery(config.checkpoint_minutes)],
            folder=folder,
            total_steps=config.steps,
            key=named_key(config.seed, DROPOUT),
            keep_last=1,
            reporter=reporter,
            describe=lambda metrics: f"loss {metrics['loss']:.3f} top-1 {100 * metrics['accuracy']:.1f} %",
        ).run()
    finally:
        batches.close()
    rows = {row["updates"]: row for row in read_metrics(folder) if row["kind"] == "curve"}
    steps = tuple(sorted(rows))
    found = [
        Curve(
            name, steps, tuple(float(rows[step][_TOP1 + name]) for step in steps), int(outcome.state[name]["skipped"])
        )
        for name in names
    ]
    return found, {name: flat(outcome.state[name]["params"]) for name in names}


class _Task:
    """The networks, each on its device, and their updates."""

    def __init__(self, nets: Sequence[Net], image_size: int, steps_per_epoch: int, config: NetTrainConfig) -> None:
        self._nets, self._size, self._config = nets, image_size, config
        devices = jax.local_devices()
        parts = shares([net.graph.num_nodes for net in nets], len(devices))
        self._device = {place: devices[number] for number, part in enumerate(parts) for place in part}
        self._runners = {device: Runner(device=device if len(devices) > 1 else None) for device in devices}
        self._rates = jax.jit(config.optimiser.rates(config.steps, steps_per_epoch))
        self._trainables: dict[tuple[int, float], Trainable] = {}
        self._cut = jax.jit(lambda key, pixels: cutout(key, pixels, config.cutout))

    def trainable(self, place: int, drop_path: float = 0.0) -> Trainable:
        """A network, trained with a probability of drop-path."""
        if (place, drop_path) not in self._trainables:
            own = Regularisation(self._config.optimiser.label_smoothing, drop_path, self._config.auxiliary_weight)
            runner = self._runners[self._device[place]]
            self._trainables = {at: made for at, made in self._trainables.items() if at[0] != place}
            self._trainables[place, drop_path] = trainable(self._nets[place].model, own, runner, self._size)
        return self._trainables[place, drop_path]

    def initial(self) -> NetStates:
        """Before the first update."""
        states: NetStates = {}
        for place, net in enumerate(self._nets):
            own = self.trainable(place)
            key = jax.random.fold_in(named_key(self._config.seed, OWN_WEIGHTS), place)
            params = {path: jnp.array(leaf) for path, leaf in {**own.new_params(key), **net.params}.items()}
            state = {
                "params": traverse_util.unflatten_dict(params),
                "moments": traverse_util.unflatten_dict(initial_moments(self._config.optimiser, params)),
                "statistics": own.statistics,
                "skipped": jnp.zeros((), jnp.int32),
            }
            states[net.name] = jax.device_put(state, self._device[place])
        return states

    def step(self, state: NetStates, batch: Batch, number: int, key: jax.Array) -> StepOutput[NetStates]:
        """An update of every network."""
        rate, (pixels, labels) = np.float32(self._rates(number)), batch
        if self._config.cutout:
            pixels = self._cut(jax.random.fold_in(key, len(self._nets)), pixels)
        drop_path = self._config.drop_path * (RISE * number // self._config.steps) / RISE

        def one(place: int) -> tuple[dict[str, Any], jax.Array, jax.Array]:
            own = state[self._nets[place].name]
            device = self._device[place]
            batch_there = jax.device_put((pixels, labels), device)
            params = flat(own["params"])
            rng = jax.device_put(jax.random.fold_in(key, place), device)
            found = self.trainable(place, drop_path).gradients(params, own["statistics"], batch_there, rng)
            moments = flat(own["moments"])
            loss_and_gradient = (found.loss, found.gradients)
            new, after, finite = update(
                self._config.optimiser, params, moments, loss_and_gradient, jax.device_put(rate, device)
            )
            return (
                {
                    "params": traverse_util.unflatten_dict(new),
                    "moments": traverse_util.unflatten_dict(after),
                    "statistics": found.statistics,
                    "skipped": _count(own["skipped"], finite),
                },
                found.loss,
                found.correct,
            )

        results = side_by_side(one, range(len(self._nets)), self._config.threads * len(self._runners))
        losses = [float(loss) for _, loss, _ in results]
        finite = [loss for loss in losses if np.isfinite(loss)]
        accuracy = sum(float(correct) for *_, correct in results) / (len(results) * len(labels))
        metrics = {
            "loss": float(np.mean(finite)) if finite else float("nan"),
            "accuracy": accuracy,
            "learning_rate": float(rate),
            "not_finite": len(losses) - len(finite),
        }
        return StepOutput({net.name: own for net, (own, _, _) in zip(self._nets, results, strict=True)}, metrics)


@jax.jit
def _count(skipped: jax.Array, finite: jax.Array) -> jax.Array:
    return skipped + ~finite


class _Measure(Callback[NetStates, Batch]):
    """Accuracy of every network after some numbers of updates; a row ``curve`` of metrics each."""

    def __init__(self, task: _Task, initial: NetStates, images: ImageSet | ImageStream, config: NetTrainConfig) -> None:
        self._task, self._initial, self._config = task, initial, config
        test = (config.image_split, config.test_batch, config.test_images)
        self._batches = RepeatedBatches(lambda: eval_batches(images, *test))
        training = (config.batch_size, config.seed, config.bn_batches)
        self._training_images = RepeatedBatches(lambda: training_images(images, *training))

    def start(self, first: int, log: Log) -> None:
        """Measures the starts, if nothing was trained before."""
        if first == 0:
            self._write(self._initial, 0, log)
        self._initial = {}  # updates give its buffers up

    def after_step(self, update: Update[NetStates, Batch], decision: Decision, log: Log) -> None:
        """Measures if it is time."""
        if update.done in self._config.measured:
            self._write(update.state, update.done, log)

    def _write(self, state: NetStates, done: int, log: Log) -> None:
        found = {_TOP1 + name: top1 for name, top1 in zip(state, self._accuracies(state), strict=True)}
        # A run that resumes drops rows of updates that it repeats: this one belongs to the last update made.
        log.write("curve", max(done - 1, 0), {"updates": done, **found})
        log.say(f"after {done} updates: top-1 {100 * float(np.mean(list(found.values()))):.1f} % in the mean")

    def _accuracies(self, state: NetStates) -> list[float]:
        config, names = self._config, list(state)

        def of(place: int) -> float:
            own = state[names[place]]
            network = self._task.trainable(place).network(flat(own["params"]))
            given = None
            if config.bn == "reestimated":
                given = network.statistics(self._training_images)
            elif config.bn == "running" and own["statistics"]:
                given = own["statistics"].get("batch_stats")
            return mean_top_k(network, given, self._batches)[0]

        return side_by_side(of, range(len(names)), config.threads)

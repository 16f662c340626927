"""Training a detector as a task of the trainer: whole updates in one program, batches by number, average precision."""

import dataclasses
import functools
import pathlib
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from flax.core import scope

from ghn_jax.detection.average_precision import AveragePrecision, average_precision
from ghn_jax.detection.data import Scenes
from ghn_jax.detection.losses import Truth, box_loss, choose, proposal_loss
from ghn_jax.detection.model import Detections, DetectorConfig, Heads, detections
from ghn_jax.fields import COUNT, COUNT_OR_NONE, SEED, Range, check_fields
from ghn_jax.graphs.param_spec import Path
from ghn_jax.images.augment import normalise
from ghn_jax.images.image_set import Style
from ghn_jax.keys import DETECTOR_HEADS, DETECTOR_TRAINING, named_key
from ghn_jax.runs.callbacks import Callback, Decision, Log, SaveEvery, Update
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.runs.progress import Reporter
from ghn_jax.runs.trainer import StepOutput, Trainer, by_number

_RANGES = {
    "epochs": COUNT,
    "batch_size": Range(1, 10_000),
    "learning_rate": Range(0, whole=False, open=True),
    "momentum": Range(0, 1, whole=False, below=True),
    "l2": Range(0, whole=False),
    "warmup_steps": COUNT_OR_NONE,
    "decay_epochs": COUNT,
    "seed": SEED,
}


@dataclasses.dataclass(frozen=True, slots=True)
class DetectionConfig:
    """How a detector is trained; the defaults are those of torchvision's tutorial on Penn-Fudan.

    Attributes:
      detector: its heads.
      epochs: passes over the training scenes.
      batch_size: images of an update.
      learning_rate: of SGD, after warm-up.
      momentum: of SGD.
      l2: factor of the weights that is added to the gradient.
      warmup_steps: updates over which the rate rises from a thousandth.
      decay_epochs: after so many epochs the rate falls to a tenth, and again.
      seed: of heads, order, flips and samples.
    """

    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)
    epochs: int = 10
    batch_size: int = 2
    learning_rate: float = 0.005
    momentum: float = 0.9
    l2: float = 5e-4
    warmup_steps: int = 60
    decay_epochs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)

    def rates(self, per_epoch: int) -> optax.Schedule:
        """Learning rate of the update after so many."""
        falls = {
            self.decay_epochs * per_epoch * number: 0.1 for number in range(1, self.epochs // self.decay_epochs + 1)
        }
        base = optax.piecewise_constant_schedule(self.learning_rate, falls)
        rise = optax.linear_schedule(1e-3, 1.0, max(self.warmup_steps - 1, 1))
        return (lambda step: rise(step) * base(step)) if self.warmup_steps else base


@flax.struct.dataclass
class DetectorState:
    """Everything that updates change: weights of backbone and heads, SGD's memory, running statistics."""

    params: Any
    moments: optax.OptState
    statistics: Any


class DetectorTask:
    """A backbone with heads, and its updates.

    Args:
      backbone: linen module from normalised images (B, H, W, 3) to features (B, h, w, C), with ``train``.
      start: weights of the backbone by path; leaves that it does not give are the backbone's own.
      training: scenes to train on.
      style: statistics of the images.
      config: how.
    """

    def __init__(
        self, backbone: nn.Module, start: dict[Path, jax.Array], training: Scenes, style: Style, config: DetectionConfig
    ) -> None:
        self._backbone, self._training, self._style, self.config = backbone, training, style, config
        _, self._height, self._width, _ = training.images.shape
        images = jnp.zeros((1, self._height, self._width, 3))
        own, other = jax.random.split(named_key(config.seed, DETECTOR_HEADS))
        output: Any = jax.jit(lambda key: backbone.init_with_output(key, images))(own)
        features, variables = output
        self._heads = Heads(config.detector, features.shape[-1])
        heads: Any = self._heads.init(other, features, self._height, self._width)
        flat: Any = traverse_util.flatten_dict(variables["params"])
        flat = {path: jnp.array(start.get(path, leaf)) for path, leaf in flat.items()}
        self._first = {"backbone": traverse_util.unflatten_dict(flat), "heads": heads["params"]}
        self._statistics = {name: tree for name, tree in variables.items() if name != "params"}
        self.per_epoch = max(len(training) // config.batch_size, 1)
        self._sgd = optax.chain(
            optax.add_decayed_weights(config.l2), optax.sgd(config.rates(self.per_epoch), config.momentum)
        )
        self._update = jax.jit(self._updated, donate_argnums=0)
        self._detect = jax.jit(self._detected)

    def initial(self) -> DetectorState:
        """Before the first update."""
        params = jax.tree.map(jnp.array, self._first)
        return DetectorState(params, self._sgd.init(params), jax.tree.map(jnp.array, self._statistics))

    def batch(self, number: int) -> Scenes:
        """Scenes of an update."""
        epoch, place = divmod(number, self.per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self._training))
        return self._training.take(order[place * self.config.batch_size : (place + 1) * self.config.batch_size])

    def step(self, state: DetectorState, batch: Scenes, number: int, key: jax.Array) -> StepOutput[DetectorState]:
        """An update."""
        truth = Truth(jnp.asarray(batch.boxes), jnp.asarray(batch.classes), jnp.asarray(batch.classes >= 0))
        new, losses = self._update(state, jnp.asarray(batch.images), truth, key)
        return StepOutput(new, {name: float(value) for name, value in losses.items()})

    def _updated(
        self, state: DetectorState, images: jax.Array, truth: Truth, key: jax.Array
    ) -> tuple[DetectorState, dict[str, jax.Array]]:
        of_flip, of_anchors, of_boxes, dropout = jax.random.split(key, 4)
        images, truth = flip(of_flip, images, truth)
        config, size = self.config.detector, (self._height, self._width)

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params["backbone"], **state.statistics}
            output: Any = self._backbone.apply(
                variables,
                normalise(images, self._style),
                train=True,
                mutable=scope.DenyList("params"),
                rngs={"dropout": dropout},
            )
            features, after = output
            heads: Any = functools.partial(self._heads.apply, {"params": params["heads"]})
            proposed: Any = heads(features, *size, method=Heads.propose)
            shapes = (size, features.shape[1:3])
            first = proposal_loss(config, proposed, truth, of_anchors, shapes)
            chosen = choose(config, proposed, truth, of_boxes)
            logits, found = heads(features, chosen.boxes, size[0] / features.shape[1], method=Heads.classify)
            second = box_loss(chosen, logits, found)
            return first + second, ({"proposals": first, "boxes": second}, after)

        (loss, (losses, after)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        steps, moments = self._sgd.update(gradients, state.moments, state.params)
        params = optax.apply_updates(state.params, steps)
        return DetectorState(params, moments, {**state.statistics, **after}), {"loss": loss, **losses}

    def detect(self, state: DetectorState, scenes: Scenes, batch_size: int = 16) -> list[Detections]:
        """Detections of all scenes, in order; the last batch is filled up by repetition and cut."""
        found = []
        for first in range(0, len(scenes), batch_size):
            rows = np.arange(first, first + batch_size) % len(scenes)
            batch: Detections = self._detect(state, jnp.asarray(scenes.images[rows]))
            count = min(batch_size, len(scenes) - first)
            found.append(jax.tree.map(lambda part, count=count: part[:count], jax.device_get(batch)))
        return found

    def _detected(self, state: DetectorState, images: jax.Array) -> Detections:
        variables = {"params": state.params["backbone"], **state.statistics}
        features: Any = self._backbone.apply(variables, normalise(images, self._style), train=False)
        heads: Any = functools.partial(self._heads.apply, {"params": state.params["heads"]})
        proposed: Any = heads(features, self._height, self._width, method=Heads.propose)
        logits, offsets = heads(features, proposed.boxes, self._height / features.shape[1], method=Heads.classify)
        return detections(self.config.detector, proposed, logits, offsets, (self._height, self._width))


def flip(key: jax.Array, images: jax.Array, truth: Truth) -> tuple[jax.Array, Truth]:
    """Each image and its boxes mirrored left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1))
    width = images.shape[2]
    left, top, right, bottom = jnp.split(truth.boxes, 4, axis=-1)
    other = jnp.concatenate([width - right, top, width - left, bottom], axis=-1)
    boxes = jnp.where(mirrored & truth.there[..., None], other, truth.boxes)
    return jnp.where(mirrored[..., None], images[:, :, ::-1], images), truth._replace(boxes=boxes)


def train_detector(
    task: DetectorTask, test: Scenes, folder: pathlib.Path, reporter: Reporter | None = None
) -> list[AveragePrecision]:
    """Trains, or goes on where a run in the same folder stopped; average precision on test scenes after each epoch.

    Raises:
      ValueError: without the package pycocotools, or where the trainer does.
    """
    Trainer(
        task.step,
        task.initial(),
        by_number(task.batch),
        [_Measure(task, test), SaveEvery(5.0)],
        folder=folder,
        total_steps=task.config.epochs * task.per_epoch,
        key=named_key(task.config.seed, DETECTOR_TRAINING),
        keep_last=1,
        reporter=reporter,
    ).run()
    rows = [row for row in read_metrics(folder) if row["kind"] == "test"]
    return [AveragePrecision(row["mean"], row["at_half"]) for row in rows]


class _Measure(Callback[DetectorState, Scenes]):
    """Average precision on test scenes after each epoch; a row ``test`` of metrics each."""

    def __init__(self, task: DetectorTask, test: Scenes) -> None:
        self._task, self._test = task, test

    def after_step(self, update: Update[DetectorState, Scenes], decision: Decision, log: Log) -> None:
        """Measures at the end of an epoch."""
        epoch, rest = divmod(update.done, self._task.per_epoch)
        if not rest:
            found = average_precision(self._test, self._task.detect(update.state, self._test))
            log.write("test", update.number, found._asdict())
            log.say(f"epoch {epoch}: average precision {found.mean:.3f}, at overlap 0.5 {found.at_half:.3f}")

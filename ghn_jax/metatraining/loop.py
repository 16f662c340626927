"""Meta-training as a task of the trainer: one step function, its batches, and what happens beside the updates."""

import dataclasses
import json
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ghn_jax.deepnets.sources import training_stream
from ghn_jax.hypernet import GHN, PretrainedGHN, init_ghn, load_ghn, save_file, with_classes
from ghn_jax.images import ImageSet, ImageStream, TrainBatches, few_shot, load_images, train_batches
from ghn_jax.keys import DROPOUT, INITIALISATION, named_key
from ghn_jax.metatraining.ahead import MetaBatches, TrainBatch
from ghn_jax.metatraining.config import TrainConfig, check_resumable, load_config, save_config, to_json
from ghn_jax.metatraining.failures import RecordFailures
from ghn_jax.metatraining.optimisation import TrainState, initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.metatraining.validation import Validator
from ghn_jax.runs import devices
from ghn_jax.runs.callbacks import Callback, Log, Metrics, SaveEvery, TimeLimit, Validation
from ghn_jax.runs.checkpoints import FOLDER, best_step, restore
from ghn_jax.runs.memory import ProcessMemory
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.runs.progress import Progress, Reporter
from ghn_jax.runs.trainer import BatchSource, StepFn, StepOutput, Trainer

_LOG = logging.getLogger(__name__)

GHN_FILE = "ghn.npz"
"""The trained hypernetwork alone, for `hypernet.load_ghn`, in the run's folder."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """A run that ended.

    Attributes:
      config: resolved.
      ghn: the hypernetwork.
      params: its weights, on the host.
      images: the image set.
      steps: updates made (or skipped) in all.
      networks: networks trained on in all, one counted as often as it was used.
      passed_over: networks passed over in all because their meta-batch had too many nodes.
      held_out: draws left out in all (`ArchitectureConfig.held_out_rule`).
      finished: whether it came to its configured end; False if a signal ended it.
    """

    config: TrainConfig
    ghn: GHN
    params: Any
    images: ImageSet | ImageStream
    steps: int
    networks: int
    passed_over: int
    held_out: int
    finished: bool


def resolve(config: TrainConfig) -> tuple[TrainConfig, ImageSet | ImageStream]:
    """Loads the images and fills in what depends on them: number of classes and image size."""
    wanted = config.images
    images = load_images(wanted.dataset, wanted.image_size, wanted.data_dir, wanted.image_workers, wanted.bad_images)
    if wanted.images_per_class is not None:
        if not isinstance(images, ImageSet):
            raise ValueError(f"--images-per-class needs a set that fits in memory; {wanted.dataset!r} is streamed")
        few = few_shot(images.train, wanted.images_per_class, config.run.seed, choice=wanted.few_shot)
        images = dataclasses.replace(images, train=few)
    return dataclasses.replace(
        config,
        images=dataclasses.replace(wanted, image_size=images.image_size),
        ghn=config.ghn.replace(num_classes=images.num_classes),
    ), images


def initialise(config: TrainConfig) -> tuple[GHN, Any]:
    """The hypernetwork of a resolved configuration and its first weights.

    They are those of `config.run.start_from`, for other classes as `hypernet.with_classes` gives them, else random ones
    that depend on the seed alone.

    Raises:
      ValueError: for a start of another configuration; names what differs.
    """
    ghn, key = GHN(config.ghn), named_key(config.run.seed, INITIALISATION)
    if config.run.start_from is not None:
        start = load_trained(config.run.start_from)
        classes = start.config.num_classes
        if classes != config.ghn.num_classes:
            start = with_classes(start, config.ghn.num_classes, key)
            _LOG.info(
                "%s is for %d classes, not %d: weights that depend on their number begin anew",
                config.run.start_from,
                classes,
                config.ghn.num_classes,
            )
        pairs = (
            (f.name, getattr(start.config, f.name), getattr(config.ghn, f.name)) for f in dataclasses.fields(config.ghn)
        )
        different = [f"{name} is {theirs!r}, wanted {ours!r}" for name, theirs, ours in pairs if theirs != ours]
        if different:
            raise ValueError(
                f"--start-from {config.run.start_from!r} is another hypernetwork than the run's: {'; '.join(different)}"
            )
        return ghn, start.variables["params"]
    return ghn, init_ghn(ghn, key)["params"]


def train(config: TrainConfig, reporter: Reporter | None = None) -> TrainResult:
    """Trains, or goes on where a run in the same folder stopped, until the configured end.

    Args:
      config: of the run.
      reporter: where lines about the run go; default: the log.

    Raises:
      ValueError: for images that cannot be had, or a folder that holds a run of another configuration.
      TooManySkippedError: if too many updates are not finite.
    """
    config, images = resolve(config)
    check_resumable(config)
    run, optimiser = config.run, config.optimiser
    image_batches = train_batches(images, config.images.batch_size, run.seed)
    steps_per_epoch = image_batches.steps_per_epoch
    mesh = devices.arch_mesh()
    ghn, params = initialise(config)
    step = MetaStep(ghn, optimiser, mesh, params, dtype=jnp.dtype(run.dtype), threads=run.threads)
    trainer = Trainer(
        meta_step_fn(config, step, optimiser.rates(steps_per_epoch)),
        devices.replicate(initial_state(optimiser, params), mesh),
        _batch_source(config, step, image_batches),
        _callbacks(config, Validator(config, ghn, images), steps_per_epoch),
        folder=config.run_dir,
        total_steps=optimiser.total_steps(steps_per_epoch),
        key=named_key(run.seed, DROPOUT),
        keep_last=run.keep_last,
        reporter=reporter,
        describe=_describe,
        waiting="compiling",
        minutes=run.minutes,
    )
    outcome = trainer.run()
    trained = jax.device_get(_local(outcome.state.learned))
    if jax.process_index() == 0:
        save_file(config.run_dir / GHN_FILE, config.ghn, {"params": trained})
    networks = outcome.done * config.architectures.meta_batch
    passed_over = (outcome.position or 0) - networks
    rows = read_metrics(config.run_dir) if jax.process_index() == 0 else []
    held_out = sum(row["networks_held_out"] for row in rows if row["kind"] == "train")
    return TrainResult(
        config, ghn, trained, images, outcome.done, networks, passed_over, held_out, finished=not outcome.interrupted
    )


def meta_step_fn(config: TrainConfig, step: MetaStep, rates: optax.Schedule) -> StepFn[TrainState, TrainBatch]:
    """The step function of meta-training: an update of the hypernetwork, and its metrics; `details` is a StepReport."""
    memory, rate_of = ProcessMemory(), jax.jit(rates)

    def step_fn(state: TrainState, batch: TrainBatch, number: int, key: jax.Array) -> StepOutput[TrainState]:
        rate = float(rate_of(number))
        new, report = step(state, batch.architectures, batch.images, rate, key)
        nets = len(batch.architectures.graphs)
        metrics = {
            "loss": report.loss,
            "accuracy": report.accuracy,
            "learning_rate": rate,
            "gradient_norm": report.gradient_norm,
            "skipped": int(not report.finite),
            "seconds": report.seconds,
            "nets_images_per_second": nets * config.images.batch_size / report.seconds,
            **step.compile_metrics(),
            # Positions count every network that was drawn, those of meta-batches with too many nodes included.
            "networks_passed_over": batch.architectures.end - nets * (number + 1),
            "networks_held_out": batch.architectures.held_out,
            **memory(),
        }
        return StepOutput(new, metrics, report)

    return step_fn


class _SaveConfig(Callback[Any, Any]):
    """Writes and shows the configuration, once everything has been built that it asks for."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def start(self, first: int, log: Log) -> None:
        if jax.process_index() == 0:
            save_config(self._config, self._config.run_dir)
            log.say(json.dumps(to_json(self._config)))


def _callbacks(config: TrainConfig, validator: Validator, steps_per_epoch: int) -> list[Callback[Any, Any]]:
    run = config.run
    callbacks: list[Callback[Any, Any]] = [
        _SaveConfig(config),
        RecordFailures(config.run_dir, run.seed, config.optimiser.max_skipped),
        SaveEvery(run.checkpoint_minutes),
    ]
    if run.minutes is not None:
        callbacks.append(TimeLimit(run.minutes))
    if run.validation_architectures:
        every = run.validate_every or steps_per_epoch
        callbacks.append(
            Validation(lambda state: validator(_local(state.learned)), every, "top1", _describe_validation)
        )
    return callbacks


def _batch_source(config: TrainConfig, step: MetaStep, images: TrainBatches) -> BatchSource[TrainBatch]:
    size = config.task.image_size

    def batches(first: int, position: int | None, progress: Progress | None) -> MetaBatches:
        return MetaBatches(
            training_stream(config.architectures, config.task, config.run.seed, position or 0),
            images,
            step,
            (config.images.batch_size, size, size, 3),
            first=first,
            ahead=config.run.compile_ahead,
            threads=config.run.compile_threads,
            progress=progress,
        )

    return batches


def _local(tree: Any) -> Any:
    """A replicated tree's copy on this process's first device."""
    return devices.copy_on(tree, jax.local_devices()[0])


def _describe(metrics: Metrics) -> str:
    text = (
        f"loss {metrics['loss']:.3f} top-1 {100 * metrics['accuracy']:.1f} %, "
        f"{metrics['nets_images_per_second']:.0f} nets x images/s, {metrics['layers_compiled']} layers compiled"
    )
    if "resident_bytes" in metrics:
        text += f", {metrics['resident_bytes'] / 1e9:.1f} GB in {metrics['memory_mappings']:,} mappings"
    return text + (f", {metrics['networks_passed_over']} networks too large" if metrics["networks_passed_over"] else "")


def _describe_validation(found: Metrics) -> str:
    return f"unseen architectures {100 * found['top1']:.1f} +- {100 * found['error']:.1f} % top-1"


def load_trained(source: str | os.PathLike[str]) -> PretrainedGHN:
    """The hypernetwork of a run's folder (its best checkpoint), or anything that `hypernet.load_ghn` takes.

    Raises:
      ValueError: for a run without checkpoints, or where `load_ghn` does.
    """
    folder = pathlib.Path(source)
    if not (folder / FOLDER).is_dir():
        return load_ghn(source)
    config = load_config(folder)
    ghn = GHN(config.ghn)
    like = initial_state(config.optimiser, init_ghn(ghn, jax.random.key(0))["params"])
    best = best_step(folder)
    if best is None:
        raise ValueError(f"{folder} holds no checkpoint yet")
    state, _ = restore(folder, best, like)
    return PretrainedGHN(ghn, {"params": state.learned})

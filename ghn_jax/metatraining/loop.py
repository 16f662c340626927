"""Meta-training as a task of the trainer: one step function, its batches, and what happens beside the updates."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ghn_jax.deepnets.sources import training_stream
from ghn_jax.hypernet import GHN, save_file
from ghn_jax.images import ImageSet, ImageStream, TrainBatches, train_batches
from ghn_jax.keys import DROPOUT, named_key
from ghn_jax.metatraining.ahead import MetaBatches, TrainBatch
from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.metatraining.config_files import check_resumable, save_config, to_json
from ghn_jax.metatraining.failures import RecordFailures
from ghn_jax.metatraining.growth import Phase, PhasedBatches, phases
from ghn_jax.metatraining.optimisation import TrainState, initial_state
from ghn_jax.metatraining.starting import initialise, load_sized, resolve
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.metatraining.validation import Validator
from ghn_jax.runs import devices
from ghn_jax.runs.callbacks import Callback, Log, Metrics, SaveEvery, TimeLimit, Validation
from ghn_jax.runs.memory import ProcessMemory
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.runs.progress import Progress, Reporter
from ghn_jax.runs.trainer import BatchSource, StepFn, StepOutput, Trainer

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
    sized = [*(load_sized(config.images, size, run.seed) for size in config.images.small_sizes), images]
    image_batches = [train_batches(each, config.images.batch_size, run.seed) for each in sized]
    steps_per_epoch = image_batches[-1].steps_per_epoch
    total_steps = optimiser.total_steps(steps_per_epoch)
    mesh = devices.arch_mesh()
    ghn, params = initialise(config)
    step = MetaStep(ghn, optimiser, mesh, params, dtype=jnp.dtype(run.dtype), threads=run.threads)
    trainer = Trainer(
        meta_step_fn(config, step, optimiser.rates(steps_per_epoch)),
        devices.replicate(initial_state(optimiser, params), mesh),
        _batch_source(config, step, image_batches, phases(config, total_steps)),
        _callbacks(config, Validator(config, ghn, images), steps_per_epoch),
        folder=config.run_dir,
        total_steps=total_steps,
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
            "image_size": batch.images[0].shape[1],
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


def _batch_source(
    config: TrainConfig, step: MetaStep, images: Sequence[TrainBatches], parts: Sequence[Phase]
) -> BatchSource[TrainBatch]:
    """Batches of phase after phase, which have images of their own."""

    def batches(first: int, position: int | None, progress: Progress | None) -> PhasedBatches[TrainBatch]:
        def make(phase: int, number: int, position: int | None) -> MetaBatches:
            size = parts[phase].image_size
            task = config.task._replace(image_size=size)
            return MetaBatches(
                training_stream(config.architectures, task, config.run.seed, position or 0),
                images[phase],
                step,
                (config.images.batch_size, size, size, 3),
                first=number,
                ahead=config.run.compile_ahead,
                threads=config.run.compile_threads,
                progress=progress,
            )

        return PhasedBatches([part.end for part in parts], make, first, position)

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

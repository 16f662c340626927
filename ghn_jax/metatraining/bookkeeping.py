"""What happens beside the updates of a run: metrics, validation, checkpoints, failures, signals."""

import contextlib
import signal
import time
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ghn_jax.deepnets import MetaBatch
from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.metatraining.failures import judge, record_failure
from ghn_jax.metatraining.optimisation import TrainState
from ghn_jax.metatraining.step import MetaStep, StepReport
from ghn_jax.metatraining.validation import Validator
from ghn_jax.runs import devices
from ghn_jax.runs.checkpoints import Checkpoints
from ghn_jax.runs.metrics import MetricWriter, Progress


class Bookkeeper(contextlib.AbstractContextManager["Bookkeeper"]):
    """Reports on every update and decides when to validate, save and stop; every process comes to the same decision.

    Used as a context: SIGTERM and SIGINT then end the run after the current update, with a checkpoint.

    Attributes:
      stop: whether the run should end now.
      interrupted: whether a signal is the reason.
    """

    def __init__(
        self,
        config: TrainConfig,
        step: MetaStep,
        checkpoints: Checkpoints,
        validator: Validator,
        *,
        steps_per_epoch: int,
        first: int,
    ) -> None:
        self._config, self._step, self._checkpoints, self._validator = config, step, checkpoints, validator
        self._total = config.optimiser.total_steps(steps_per_epoch)
        self._every = config.run.validate_every or steps_per_epoch
        self._chief = jax.process_index() == 0
        self._writer = MetricWriter(config.run_dir, first) if self._chief else None
        self._progress = Progress(self._total, first, "train") if self._chief else None
        self._start = self._saved = time.monotonic()
        self._signalled = False
        self._handlers: dict[int, Any] = {}
        self.stop = self.interrupted = False

    def __enter__(self) -> "Bookkeeper":
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: the caller's handlers stay
                self._handlers[number] = signal.signal(number, self._on_signal)
        if self._progress is not None:
            self._progress.say("compiling what the first meta-batches need; what was compiled before is read back")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._progress is not None:
            self._progress.close()
        if self._writer is not None:
            self._writer.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def after_step(
        self, number: int, state: TrainState, batch: MetaBatch, report: StepReport, *, rate: float, waited: float
    ) -> None:
        """Everything that belongs to update `number` (from 0), already made.

        Raises:
          TooManySkippedError: if more updates were skipped than allowed.
        """
        run, done = self._config.run, number + 1
        self._write(number, batch, report, rate, waited)
        if not report.finite:
            self._fail(number, state, batch, report)
        now = time.monotonic()
        out_of_time = run.minutes is not None and now - self._start >= 60 * run.minutes
        due = now - self._saved >= 60 * run.checkpoint_minutes
        self.interrupted, out_of_time, due = _agree(self._signalled, out_of_time, due)
        self.stop = self.interrupted or out_of_time or done == self._total
        metric = None
        if (done % self._every == 0 or self.stop) and not self.interrupted and run.validation_architectures:
            metric = self._validate(number, state)
        if metric is not None or due or self.stop:
            self._checkpoints.save(done, state, {"position": batch.end}, metric)
            self._saved = time.monotonic()

    def _write(self, number: int, batch: MetaBatch, report: StepReport, rate: float, waited: float) -> None:
        if self._writer is None or self._progress is None:
            return
        nets = len(batch.graphs)
        throughput = nets * self._config.images.batch_size / report.seconds
        compiled = self._step.runners[0].report()
        values = {
            "loss": report.loss,
            "accuracy": report.accuracy,
            "learning_rate": rate,
            "gradient_norm": report.gradient_norm,
            "skipped": int(not report.finite),
            "seconds": report.seconds,
            "waited_seconds": waited,
            "nets_images_per_second": throughput,
            "compiled_layers": compiled.compiled,
            "compile_seconds": compiled.seconds,
            "held_layers": compiled.held,
            "dropped_layers": compiled.dropped,
            "reloaded_layers": compiled.reloaded,
            "memory_mappings": compiled.mappings or 0,
        }
        self._writer.write("train", number, values)
        self._progress.advance(
            f"loss {report.loss:.3f} top-1 {100 * report.accuracy:.1f} % {throughput:.0f} nets x images/s, "
            f"compiled {values['compiled_layers']} layers in {values['compile_seconds']:.0f} s"
            + (f", waited {waited:.0f} s for the compiler" if waited > 1 else "")
        )

    def _fail(self, number: int, state: TrainState, batch: MetaBatch, report: StepReport) -> None:
        params = devices.copy_on(state.params, jax.local_devices()[0])
        path = record_failure(self._config.run_dir, number, params, batch, report, seed=self._config.run.seed)
        if self._progress is not None:
            self._progress.say(f"update {number} skipped, loss {report.loss}: {path}")
        local = devices.copy_on(state.skipped, jax.local_devices()[0])
        judge(int(local), number + 1, self._config.optimiser.max_skipped, path)

    def _validate(self, number: int, state: TrainState) -> float:
        """Top-1 on validation architectures, the same on every process."""
        top1 = 0.0
        if self._writer is not None and self._progress is not None:
            found = self._validator(devices.copy_on(state.params, jax.local_devices()[0]))
            self._writer.write("validation", number, found)
            top1 = found["top1"]
            shown = f"{100 * top1:.1f} +- {100 * found['error']:.1f} %"
            self._progress.say(f"update {number + 1}: unseen architectures {shown} top-1")
        if jax.process_count() > 1:
            top1 = float(multihost_utils.broadcast_one_to_all(np.float32(top1)))
        return top1


def _agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is on any process."""
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags, np.int32))
    return tuple(bool(value) for value in np.asarray(gathered).reshape(-1, len(flags)).max(axis=0))

"""The trainer: makes the updates of any task, and owns what every run needs.

A training task is one step function, a state and batches. Progress, metrics, checkpoints, exact resumption, signals
and agreement between processes are the trainer's.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax

from ghn_jax.runs.callbacks import Batch, Callback, Decision, Metrics, State, Update
from ghn_jax.runs.checkpoints import Checkpoints
from ghn_jax.runs.devices import agree
from ghn_jax.runs.environment import record_versions
from ghn_jax.runs.memory import check_memory
from ghn_jax.runs.metrics import MetricWriter
from ghn_jax.runs.progress import Progress, Reporter
from ghn_jax.runs.restarting import Batch_co, Batches, Position, RestartingBatches
from ghn_jax.runs.resuming import held_run, newest_state
from ghn_jax.runs.signals import StopSignals

logger = logging.getLogger(__name__)


class StepOutput(NamedTuple, Generic[State]):
    """What a step function returns.

    Attributes:
      state: after the update.
      metrics: numbers to write.
      details: anything that callbacks of the task want to see.
    """

    state: State
    metrics: Metrics
    details: Any = None


StepFn = Callable[[State, Batch, int, jax.Array], StepOutput[State]]
"""(state, batch, number of the update from 0, key of this update) -> the next state and metrics."""


BatchSource = Callable[[int, Position | None, Progress | None], Batches[Batch]]
"""(number of the next update, position after the one before or None at the start, progress) -> batches from there on.

It is called once a run, and once more if a worker process dies, so that what it builds is closed however the run ends;
long waits can be told to the progress.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome(Generic[State]):
    """How a run ended.

    Attributes:
      state: the last.
      done: updates made in all.
      position: behind the last batch used.
      interrupted: whether a signal ended it.
    """

    state: State
    done: int
    position: Position | None
    interrupted: bool


class Trainer(Generic[State, Batch]):
    """Makes updates until a number of them is reached, a callback stops the run, or SIGTERM or SIGINT comes.

    Where the folder holds checkpoints, the run goes on from the last one, bit for bit as if it had never stopped: the
    state, the position of the batches and the number of the update are restored, and the update's key depends on its
    number alone. All processes of a run (`jax.distributed`) take the same decisions.

    Args:
      step_fn: makes one update.
      state: before the first update; a restored one takes its structure, types and placement.
      batches: makes the batches from a position on.
      callbacks: validation, time limit, checkpoint policy, ...
      folder: of the run.
      total_steps: updates in all.
      key: root of the keys; update i has ``fold_in(key, i)``.
      keep_last: checkpoints that are kept besides the best.
      reporter: where lines about the run go; default: the log.
      describe: a line about the metrics of an update.
      waiting: what the run does while it waits for a batch.
      minutes: after which a callback will stop the run; only for what is shown about its end.
    """

    def __init__(
        self,
        step_fn: StepFn[State, Batch],
        state: State,
        batches: BatchSource[Batch],
        callbacks: Sequence[Callback[State, Batch]] = (),
        *,
        folder: pathlib.Path,
        total_steps: int,
        key: jax.Array,
        keep_last: int = 2,
        reporter: Reporter | None = None,
        describe: Callable[[Metrics], str] | None = None,
        waiting: str = "waiting for data",
        minutes: float | None = None,
    ) -> None:
        self._step_fn, self._initial, self._batches, self._callbacks = step_fn, state, batches, callbacks
        self._folder, self._total, self._key, self._keep_last = folder, total_steps, key, keep_last
        self._reporter, self._describe, self._waiting = reporter, describe or _describe, waiting
        self._limit = None if minutes is None else 60 * minutes

    def run(self) -> Outcome[State]:
        """Trains, or goes on where a run in the same folder stopped.

        If making a batch or an update fails, the updates so far are saved before the error goes on. A worker process
        that is killed is started anew once.

        Raises:
          ValueError: if another process holds the folder, or none of its checkpoints is whole or of this task.
          WorkerError: if worker processes die twice.
          OSError: if the folder cannot be written.
          MemoryError: if hardly any memory is left.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(held_run(self._folder))
            first, state, position = newest_state(self._folder, self._initial)
            checkpoints = stack.enter_context(contextlib.closing(Checkpoints(self._folder, self._keep_last)))
            kept = _Kept(checkpoints, first, state, position)
            progress = None
            if jax.process_index() == 0:
                progress = Progress(
                    self._total, first, "train", self._reporter, waiting=self._waiting, limit=self._limit
                )
            source = functools.partial(self._batches_from, progress)
            batches = stack.enter_context(
                contextlib.closing(RestartingBatches(source, first, position, kept.before_restart))
            )
            log = stack.enter_context(contextlib.closing(_RunLog(self._folder, first, progress)))
            signals = stack.enter_context(StopSignals())
            for callback in self._callbacks:
                callback.start(first, log)
            done, interrupted = first, False
            while done < self._total:
                start = time.perf_counter()
                try:
                    check_memory()
                    batch = batches.next()
                    fetched = time.perf_counter()
                    state, metrics, details = self._step_fn(state, batch, done, jax.random.fold_in(self._key, done))
                except Exception:
                    kept.after_error()
                    raise
                times = {"seconds": time.perf_counter() - fetched, "waited_seconds": fetched - start}
                update = Update(done, state, batch, {**times, **metrics}, details)
                done, position = update.done, batches.position
                log.update(update, self._describe)
                decision = self._decide(update, signals)
                metric = self._after_step(update, decision, log)
                kept.reached(done, state, position)
                if metric is not None or decision.save or decision.stop:
                    kept.save(metric)
                checkpoints.check()
                if decision.stop:
                    interrupted = decision.interrupted
                    break
        return Outcome(state, done, position, interrupted)

    def _batches_from(self, progress: Progress | None, done: int, position: Position | None) -> Batches[Batch]:
        return self._batches(done, position, progress)

    def _decide(self, update: Update[State, Batch], signals: StopSignals) -> Decision:
        """What any callback of any process wishes for."""
        wishes = [callback.wish(update) for callback in self._callbacks]
        interrupted = signals.received or any(wish.interrupted for wish in wishes)
        stop = interrupted or update.done >= self._total or any(wish.stop for wish in wishes)
        return Decision(*agree(stop, any(wish.save for wish in wishes), interrupted))

    def _after_step(self, update: Update[State, Batch], decision: Decision, log: "_RunLog") -> float | None:
        """Runs the callbacks; the last metric that one of them returned."""
        found = [callback.after_step(update, decision, log) for callback in self._callbacks]
        return next((metric for metric in reversed(found) if metric is not None), None)


class _Kept(Generic[State]):
    """What a run has reached, and its checkpoints."""

    def __init__(self, checkpoints: Checkpoints, first: int, state: State, position: Position | None) -> None:
        self._checkpoints, self._saved = checkpoints, first
        self._done, self._state, self._position = first, state, position

    def reached(self, done: int, state: State, position: Position | None) -> None:
        """Notes the state after an update."""
        self._done, self._state, self._position = done, state, position

    def save(self, metric: float | None = None) -> None:
        """Writes a checkpoint; on every process of the run."""
        self._checkpoints.save(self._done, self._state, {"position": self._position}, metric)
        self._saved = self._done

    def before_restart(self) -> None:
        """Saves what was reached, and says that worker processes are started anew."""
        logger.warning("a worker process was killed: it is started anew, after %d updates", self._done)
        self._save_alone()

    def after_error(self) -> None:
        """Saves what was reached, if that is possible."""
        try:
            self._save_alone()
        except Exception as error:
            logger.warning("the %d updates made so far could not be saved: %s", self._done, error)

    def _save_alone(self) -> None:
        """Saves, unless it needs the other processes of the run, or an update had already given the state up."""
        gone = any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(self._state))
        if self._saved == self._done or gone or jax.process_count() > 1:
            return
        self.save()
        logger.warning("the %d updates made so far are saved", self._done)


class _RunLog:
    """Metrics and lines of the first process; the others write nothing."""

    def __init__(self, folder: pathlib.Path, first: int, progress: Progress | None) -> None:
        self._progress, self._writer = progress, None
        if progress is not None:
            self._writer = MetricWriter(folder, first)
            for change in record_versions(folder, first):
                progress.say(f"resumed under other versions, results may differ: {change}")

    def write(self, kind: str, number: int, values: Metrics) -> None:
        if self._writer is not None:
            self._writer.write(kind, number, values)

    def say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.say(text)

    def update(self, update: Update[Any, Any], describe: Callable[[Metrics], str]) -> None:
        """The row and the progress of an update."""
        self.write("train", update.number, update.metrics)
        if self._progress is not None:
            self._progress.advance(describe(update.metrics), waited=update.metrics["waited_seconds"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _describe(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if not name.endswith("seconds"))


class NumberedBatches(Generic[Batch_co]):
    """Batches that depend on the number of the update alone: a function is all that a task needs."""

    def __init__(self, batch: Callable[[int], Batch_co], first: int) -> None:
        self._batch, self.position = batch, first

    def next(self) -> Batch_co:
        """The batch of the next number."""
        self.position += 1
        return self._batch(self.position - 1)

    def close(self) -> None:
        """Nothing to end."""


def by_number(batch: Callable[[int], Batch]) -> BatchSource[Batch]:
    """Batches from a function of the number of the update."""
    return lambda first, position, progress: NumberedBatches(batch, first)

"""The trainer: makes the updates of any task, and owns what every run needs.

A training task is one step function, a state and batches. Progress, metrics, checkpoints, exact resumption, signals
and agreement between processes are the trainer's.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ghn_jax.runs.callbacks import Batch, Callback, Decision, Metrics, State, Update
from ghn_jax.runs.checkpoints import Checkpoints
from ghn_jax.runs.environment import record_versions
from ghn_jax.runs.metrics import MetricWriter
from ghn_jax.runs.progress import Progress, Reporter
from ghn_jax.runs.signals import StopSignals

Batch_co = TypeVar("Batch_co", covariant=True)

Position = Any
"""Where batches go on, as JSON."""


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


class Batches(Protocol[Batch_co]):
    """Batches in order, with a position from which others go on exactly behind the last one handed out."""

    @property
    def position(self) -> Position:
        """Behind the last batch that `next` returned."""
        ...

    def next(self) -> Batch_co:
        """The next batch."""
        ...

    def close(self) -> None:
        """Ends threads and processes."""
        ...


BatchSource = Callable[[int, Position | None, Progress | None], Batches[Batch]]
"""(number of the next update, position after the one before or None at the start, progress) -> batches from there on.

It is called once a run, so that what it builds is closed however the run ends; long waits can be told to the progress.
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
        """Trains, or goes on where a run in the same folder stopped."""
        with contextlib.ExitStack() as stack:
            checkpoints = stack.enter_context(contextlib.closing(Checkpoints(self._folder, self._keep_last)))
            state, first, position = self._initial, 0, None
            if (latest := checkpoints.latest()) is not None:
                state, rest = checkpoints.restore(latest, state)
                first, position = latest, rest["position"]
            progress = None
            if jax.process_index() == 0:
                progress = Progress(
                    self._total, first, "train", self._reporter, waiting=self._waiting, limit=self._limit
                )
            batches = stack.enter_context(contextlib.closing(self._batches(first, position, progress)))
            log = stack.enter_context(contextlib.closing(_RunLog(self._folder, first, progress)))
            signals = stack.enter_context(StopSignals())
            for callback in self._callbacks:
                callback.start(first, log)
            done, interrupted = first, False
            while done < self._total:
                start = time.perf_counter()
                batch = batches.next()
                fetched = time.perf_counter()
                state, metrics, details = self._step_fn(state, batch, done, jax.random.fold_in(self._key, done))
                times = {"seconds": time.perf_counter() - fetched, "waited_seconds": fetched - start}
                update = Update(done, state, batch, {**times, **metrics}, details)
                done, position = update.done, batches.position
                log.update(update, self._describe)
                decision = self._decide(update, signals)
                metric = self._after_step(update, decision, log)
                if metric is not None or decision.save or decision.stop:
                    checkpoints.save(done, state, {"position": position}, metric)
                if decision.stop:
                    interrupted = decision.interrupted
                    break
        return Outcome(state, done, position, interrupted)

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


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is on any process."""
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags, np.int32))
    return tuple(bool(value) for value in np.asarray(gathered).reshape(-1, len(flags)).max(axis=0))


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

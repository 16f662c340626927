"""What may happen beside the updates of a run: the types of callbacks, and those that any task can use."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

State = TypeVar("State")
Batch = TypeVar("Batch")

Metrics = Mapping[str, float]
"""Numbers by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Update(Generic[State, Batch]):
    """One update that was made.

    Attributes:
      number: of the update, from 0.
      state: after it.
      batch: that it used.
      metrics: of it, as written.
      details: whatever else the task's step function found, for the task's own callbacks.
    """

    number: int
    state: State
    batch: Batch
    metrics: Metrics
    details: Any

    @property
    def done(self) -> int:
        """Updates made so far."""
        return self.number + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What happens after an update; wished for by one process, or decided on all of them.

    Attributes:
      stop: whether the run ends.
      save: whether a checkpoint is written; one that ends the run always is.
      interrupted: whether a signal is why it ends.
    """

    stop: bool = False
    save: bool = False
    interrupted: bool = False


class Log(Protocol):
    """Where a callback writes; the run's first process writes, on the others nothing happens."""

    def write(self, kind: str, number: int, values: Metrics) -> None:
        """A row of metrics that belongs to update `number`."""
        ...

    def say(self, text: str) -> None:
        """A line for whoever watches the run."""
        ...


class Callback(Generic[State, Batch]):
    """Something beside the updates. All methods do nothing unless overridden; all run in the thread of the updates."""

    def start(self, first: int, log: Log) -> None:
        """Before update `first`, once everything that the run needs has been built."""

    def wish(self, update: Update[State, Batch]) -> Decision:
        """What this process would like after an update; anything that one process wishes happens on all."""
        return Decision()

    def after_step(self, update: Update[State, Batch], decision: Decision, log: Log) -> float | None:
        """After the processes have agreed on a decision; called on all of them.

        Returns:
          A metric, higher is better and the same on every process, if a checkpoint is to be written and ranked by it.
        """
        return None


class TimeLimit(Callback[Any, Any]):
    """Ends the run some minutes after its start."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._start = time.monotonic()

    def start(self, first: int, log: Log) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def wish(self, update: Update[Any, Any]) -> Decision:
        """To stop, once the time is over."""
        return Decision(stop=time.monotonic() - self._start >= self._seconds)


class SaveEvery(Callback[Any, Any]):
    """Wishes for a checkpoint when some minutes have passed since the last one it got."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def start(self, first: int, log: Log) -> None:
        """Starts the clock."""
        self._saved = time.monotonic()

    def wish(self, update: Update[Any, Any]) -> Decision:
        """To save, once it is time."""
        return Decision(save=time.monotonic() - self._saved >= self._seconds)

    def after_step(self, update: Update[Any, Any], decision: Decision, log: Log) -> None:
        """Notes that a checkpoint is written."""
        if decision.save or decision.stop:
            self._saved = time.monotonic()


class Validation(Callback[State, Any]):
    """Measures the state every so many updates and at the end, unless a signal ends the run.

    Args:
      evaluate: metrics of a state; runs in the first process only.
      every: updates between validations.
      metric: name of the one that ranks checkpoints, higher is better.
      describe: a line about the metrics.
    """

    def __init__(
        self,
        evaluate: Callable[[State], Metrics],
        every: int,
        metric: str,
        describe: Callable[[Metrics], str] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"validation: the number of updates between two must be at least 1, got {every}")
        self._evaluate, self._every, self._metric, self._describe = evaluate, every, metric, describe

    def after_step(self, update: Update[State, Any], decision: Decision, log: Log) -> float | None:
        """Validates if it is time."""
        if decision.interrupted or not (decision.stop or update.done % self._every == 0):
            return None
        value = 0.0
        if jax.process_index() == 0:
            found = self._evaluate(update.state)
            value = float(found[self._metric])
            log.write("validation", update.number, found)
            shown = f"{self._metric} {value:.4g}" if self._describe is None else self._describe(found)
            log.say(f"update {update.done}: {shown}")
        if jax.process_count() > 1:
            value = float(multihost_utils.broadcast_one_to_all(np.float32(value)))
        return value

"""Batches whose worker processes are started once more if one of them dies."""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

Batch_co = TypeVar("Batch_co", covariant=True)

Position = Any
"""Where batches go on, as JSON."""


class WorkerError(RuntimeError):
    """Worker processes of a run died again after they had been started anew."""


class Batches(Protocol[Batch_co]):
    """Batches in order, with a position from which others go on exactly behind the last one handed out."""

    @property
    def position(self) -> Position:
        """Behind the last batch that `next` returned."""
        ...

    def next(self) -> Batch_co:
        """The next batch; raises BrokenProcessPool if a process that makes batches was killed."""
        ...

    def close(self) -> None:
        """Ends threads and processes."""
        ...


class RestartingBatches(Generic[Batch_co]):
    """Batches that go on exactly where they were when a worker process was killed, once.

    Args:
      make: makes batches behind so many updates and a position.
      done: updates made before.
      position: behind the batch of the last of them; None at the start.
      before_restart: called before the workers are started anew.
    """

    def __init__(
        self,
        make: Callable[[int, Position | None], Batches[Batch_co]],
        done: int,
        position: Position | None,
        before_restart: Callable[[], None],
    ) -> None:
        self._make, self._done, self._before_restart = make, done, before_restart
        self._restarted = False
        self._batches = make(done, position)
        self.position = position

    def next(self) -> Batch_co:
        """The next batch.

        Raises:
          WorkerError: if workers died for the second time.
        """
        try:
            batch = self._batches.next()
        except BrokenProcessPool as error:
            if self._restarted:
                raise WorkerError(
                    "a worker process was killed again, after it had been started anew: the system may be short of "
                    "memory; the same command goes on from the last checkpoint"
                ) from error
            self._restarted = True
            self._before_restart()
            self._batches.close()
            self._batches = self._make(self._done, self.position)
            return self.next()
        self._done += 1
        self.position = self._batches.position
        return batch

    def close(self) -> None:
        """Ends threads and processes."""
        self._batches.close()

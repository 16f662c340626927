"""Images that grow during a run: most updates see small ones, which cost a fraction, the last ones the final size.

Networks of DeepNets-1M take images of any size, and what a hypernetwork learns of them carries over from one size to
the next (progressive resizing).
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.runs.restarting import Batch_co, Batches, Position


class Phase(NamedTuple):
    """Updates that see images of one size: those with numbers below `end`, behind the phase before."""

    image_size: int
    end: int


def phases(config: TrainConfig, total_steps: int) -> tuple[Phase, ...]:
    """The phases of a run of so many updates, in order; one whose share is less than an update is empty.

    Args:
      config: resolved.
      total_steps: updates of the whole run.
    """
    ends = [round(share * total_steps) for share in config.images.small_until]
    return tuple(map(Phase, (*config.images.small_sizes, config.task.image_size), (*ends, total_steps)))


class PhasedBatches(Generic[Batch_co]):
    """Batches of one phase after another; each goes on at the position that the one before has reached.

    Args:
      ends: number of the first update that is not of a phase, for each phase, in order.
      make: batches of a phase (its place in the order) from an update and a position on.
      first: number of the first update.
      position: behind the update before; None at the start.
    """

    def __init__(
        self,
        ends: Sequence[int],
        make: Callable[[int, int, Position | None], Batches[Batch_co]],
        first: int,
        position: Position | None,
    ) -> None:
        self._ends, self._make, self._number = ends, make, first
        self._phase = self._phase_of(first)
        self._batches = make(self._phase, first, position)

    def _phase_of(self, number: int) -> int:
        return next((phase for phase, end in enumerate(self._ends) if number < end), len(self._ends) - 1)

    @property
    def position(self) -> Position:
        """Behind the last batch that `next` returned."""
        return self._batches.position

    def next(self) -> Batch_co:
        """The next batch, of the next phase if this one has ended."""
        phase = self._phase_of(self._number)
        if phase != self._phase:
            position = self._batches.position
            self._batches.close()
            self._batches, self._phase = self._make(phase, self._number, position), phase
        self._number += 1
        return self._batches.next()

    def close(self) -> None:
        """Ends the threads and processes of the phase."""
        self._batches.close()

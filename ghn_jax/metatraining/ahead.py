"""Meta-batches whose programs are compiled by background threads before their turn comes."""

import collections
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ghn_jax.deepnets import MetaBatch
from ghn_jax.metatraining.step import MetaStep


class CompiledAhead:
    """Hands out the meta-batches of a source in order, each when its programs are ready.

    Attributes:
      waited: seconds that the last hand-out waited for programs or for the source.
    """

    def __init__(
        self,
        source: Iterator[MetaBatch],
        step: MetaStep,
        image_shape: tuple[int, ...],
        *,
        ahead: int,
        threads: int,
    ) -> None:
        self._source, self._step, self._shape = source, step, image_shape
        self._ahead = ahead if threads else 0
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="compile")
        self._waiting: collections.deque[tuple[MetaBatch, Future[None] | None]] = collections.deque()
        self.waited = 0.0

    def next(self) -> MetaBatch:
        """The next meta-batch."""
        start = time.perf_counter()
        while len(self._waiting) <= self._ahead:
            batch = next(self._source)
            warmed = self._pool.submit(self._step.warm, batch, self._shape) if self._ahead else None
            self._waiting.append((batch, warmed))
        batch, warmed = self._waiting.popleft()
        if warmed is not None:
            warmed.result()
        self.waited = time.perf_counter() - start
        return batch

    def close(self) -> None:
        """Stops compiling and ends the source's processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        closing = getattr(self._source, "close", None)
        if closing is not None:
            closing()

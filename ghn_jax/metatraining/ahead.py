"""Training batches: architectures whose programs background threads compile before their turn comes, and images."""

import collections
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import NamedTuple

from ghn_jax.deepnets import MetaBatch
from ghn_jax.images import Batch, TrainBatches
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.runs.progress import Progress


class TrainBatch(NamedTuple):
    """What one update of the hypernetwork uses.

    Attributes:
      architectures: of the meta-batch.
      images: normalised images (B, H, W, 3) and labels (B,), shared by all of them.
    """

    architectures: MetaBatch
    images: Batch


class _Compiling:
    """Compilation of what a meta-batch needs, under way in a thread.

    Attributes:
      result: finished when everything is compiled.
      done, missing: layers compiled for it so far, of how many; 0 of 0 before it begins.
    """

    def __init__(self, pool: ThreadPoolExecutor, step: MetaStep, batch: MetaBatch, shape: tuple[int, ...]) -> None:
        self.done = self.missing = 0
        self.result: Future[None] = pool.submit(step.warm, batch, shape, self._tell)

    def __str__(self) -> str:
        return f"{self.done} of {self.missing} layers" if self.missing else "the hypernetwork"

    def _tell(self, done: int, missing: int) -> None:
        self.done, self.missing = done, missing


class MetaBatches:
    """Hands out the meta-batches of a source in order, each when its programs are ready, with the images of its number.

    Args:
      source: meta-batches without end; closed with this if it can be.
      images: image batches by number.
      step: compiles ahead.
      image_shape: (B, H, W, 3).
      first: number of the first batch.
      ahead: meta-batches to look ahead.
      threads: that compile; 0 compiles when a program is needed.
      progress: told what is waited for.

    Attributes:
      position: of the architectures, behind the last meta-batch handed out; None before the first.
    """

    def __init__(
        self,
        source: Iterator[MetaBatch],
        images: TrainBatches,
        step: MetaStep,
        image_shape: tuple[int, ...],
        *,
        first: int,
        ahead: int,
        threads: int,
        progress: Progress | None = None,
    ) -> None:
        self._source, self._images, self._step, self._shape = source, images, step, image_shape
        self._number, self._progress = first, progress
        self._ahead = ahead if threads else 0
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="compile")
        self._waiting: collections.deque[tuple[MetaBatch, _Compiling | None]] = collections.deque()
        self.position: int | None = None

    def next(self) -> TrainBatch:
        """The next meta-batch and its images."""
        while len(self._waiting) <= self._ahead:
            batch = next(self._source)
            compiling = _Compiling(self._pool, self._step, batch, self._shape) if self._ahead else None
            self._waiting.append((batch, compiling))
        batch, compiling = self._waiting.popleft()
        if compiling is not None:
            self._wait(compiling)
        self.position = batch.end
        self._number += 1
        return TrainBatch(batch, self._images.batch(self._number - 1))

    def _wait(self, compiling: _Compiling) -> None:
        """Waits for programs, and says so while it lasts."""
        start = time.monotonic()
        while True:
            try:
                return compiling.result.result(timeout=1.0)
            except TimeoutError:
                if compiling.result.done():
                    raise  # of the compilation itself
                if self._progress is not None:
                    waited = time.monotonic() - start
                    what = (
                        f"{compiling.done} of {compiling.missing} layers" if compiling.missing else "the hypernetwork"
                    )
                    self._progress.wait(f"{what} for update {self._number + 1}, waited {waited:.0f} s")

    def close(self) -> None:
        """Stops compiling and ends the processes of the source and of the images."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._images.close()
        if isinstance(self._source, Generator):
            self._source.close()

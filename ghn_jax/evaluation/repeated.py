"""Batches that are gone through again and again, of which no more lies on the device than the one in use."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp

from ghn_jax.images import ImageSet, ImageStream, train_batches

Batch = TypeVar("Batch")

HOST_BYTES = 2_000_000_000
"""Batches of this size in all are kept on the host: 50,000 images of 32 x 32, or 3,300 of 224 x 224."""


class RepeatedBatches(Iterable[Batch], Generic[Batch]):
    """The batches (pytrees of arrays) that a function makes, as often as they are wanted.

    They are kept on the host while they fit into `most_bytes`, and otherwise made anew every time: the 50,000 images of
    ImageNet's test would take 30 GB, decoding them again costs a pass over the files for each network.

    Args:
      make: begins to make the batches; every call must make the same ones.
      most_bytes: of the host's memory.
    """

    def __init__(self, make: Callable[[], Iterable[Batch]], most_bytes: int = HOST_BYTES) -> None:
        self._make, self._most = make, most_bytes
        self._kept: list[Batch] | None = None
        self._fits = True

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            for batch in self._kept:
                yield jax.tree.map(jnp.asarray, batch)
            return
        kept: list[Batch] = []
        size = 0
        for batch in self._make():
            if self._fits:
                size += sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
                self._fits = size <= self._most
                if self._fits:
                    kept.append(jax.device_get(batch))
                else:
                    kept.clear()
            yield batch
        if self._fits:
            self._kept = kept


def training_images(images: ImageSet | ImageStream, batch_size: int, seed: int, count: int) -> Iterator[jax.Array]:
    """The first `count` augmented training batches of a set, images (B, H, W, 3) alone."""
    batches = train_batches(images, batch_size, seed)
    try:
        for step in range(count):
            yield batches.batch(step)[0]
    finally:
        batches.close()

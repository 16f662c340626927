"""Batches on the device: augmented for training, plain for evaluation, whatever kind of set they come from."""

import functools
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.images.augment import add_noise, crop_and_flip, normalise, random_flip
from ghn_jax.images.colour import colour_jitter
from ghn_jax.images.image_set import ImageSet, ImageSplit, Style
from ghn_jax.images.stream import ImageStream, evenly_spaced
from ghn_jax.keys import AUGMENTATION, NOISE, named_key

Batch = tuple[jax.Array, jax.Array]
"""Normalised images float32 (B, H, W, 3) and labels int32 (B,)."""

_GRAIN_LOST_WORKER = "terminated unexpectedly"


class TrainBatches(Protocol):
    """Training batches by step."""

    steps_per_epoch: int

    def batch(self, step: int) -> Batch:
        """The batch of a step: the same for the same seed, whatever was asked for before.

        Raises BrokenProcessPool if a process that decodes images was killed; asked again, it starts another.
        """
        ...

    def close(self) -> None:
        """Ends processes that decode images; a batch that is asked for later starts others."""
        ...


def train_batches(images: ImageSet | ImageStream, batch_size: int, seed: int) -> TrainBatches:
    """Endless augmented training batches.

    Raises:
      ValueError: if the set is smaller than one batch, or has no training images.
    """
    count = len(images.train if isinstance(images, ImageSet) else images.train_rows)
    if not count:
        raise ValueError(f"{images.name!r} has no training images: it can only be evaluated on")
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size must be between 1 and the {count} training images, got {batch_size}")
    if isinstance(images, ImageSet):
        return _MemoryBatches(images, batch_size, seed)
    return _StreamBatches(images, batch_size, seed)


class _MemoryBatches:
    """The training split stays on the host; a batch is gathered there and augmented by one compiled call."""

    def __init__(self, images: ImageSet, batch_size: int, seed: int) -> None:
        self._batch_size, self._seed = batch_size, seed
        self._count = len(images.train)
        self.steps_per_epoch = self._count // batch_size
        self._split = images.train
        self._key = named_key(seed, AUGMENTATION)
        self._make = jax.jit(functools.partial(_augmented, style=images.style))
        self._order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._count).astype(np.int32)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        chosen = self._split.take(rows)
        return self._make(jax.random.fold_in(self._key, step), chosen.images), jnp.asarray(chosen.labels)

    def close(self) -> None:
        """Nothing to end."""


class _StreamBatches:
    """Crops come from worker processes; flips, colours and normalisation are one compiled call."""

    def __init__(self, images: ImageStream, batch_size: int, seed: int) -> None:
        self._stream, self._batch_size, self._seed = images, batch_size, seed
        self.steps_per_epoch = len(images.train_rows) // batch_size
        self._key = named_key(seed, AUGMENTATION)
        self._make = jax.jit(functools.partial(_coloured, style=images.style))
        self._next: int | None = None
        self._iterator: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())

    def batch(self, step: int) -> Batch:
        if step != self._next:
            self._iterator = self._stream.train_batches(self._batch_size, self._seed, step)
        self._next = step + 1
        try:
            images, labels = next(self._iterator)
        except RuntimeError as error:
            if _GRAIN_LOST_WORKER in str(error):  # grain has no type of its own for it
                raise BrokenProcessPool(f"a process that decodes images was killed: {error}") from error
            raise
        return self._make(jax.random.fold_in(self._key, step), images), jnp.asarray(labels)

    def close(self) -> None:
        """Drops grain's iterator, with which its processes end; one that lives until Python ends warns of leaks."""
        self._next, self._iterator = None, iter(())


def _augmented(key: jax.Array, images: jax.Array, style: Style) -> jax.Array:
    return normalise(crop_and_flip(key, images, style), style)


def _coloured(key: jax.Array, images: jax.Array, style: Style) -> jax.Array:
    flip_key, colour_key = jax.random.split(key)
    return normalise(colour_jitter(colour_key, random_flip(flip_key, images)), style)


def eval_batches(
    images: ImageSet | ImageStream, split: str, batch_size: int, limit: int | None = None, noise_seed: int | None = None
) -> Iterator[Batch]:
    """Batches of a split in a fixed random order, all of the same size: an incomplete last batch is left out.

    Networks normalise by the statistics of the batch they see, so batches of a set sorted by class must be mixed.

    Args:
      images: the set.
      split: ``train``, ``val`` or ``test``.
      batch_size: B; a smaller split makes one batch of all of its images.
      limit: use this many images, evenly spread over the split.
      noise_seed: draws the noise of the noise test; None adds none.
    """
    if isinstance(images, ImageSet):
        batches = _memory_batches(images.split(split), batch_size, limit)
    else:
        batches = images.eval_batches(split, batch_size, limit)
    prepare = jax.jit(functools.partial(_prepared, style=images.style, noisy=noise_seed is not None))
    key = named_key(noise_seed or 0, NOISE)
    for place, (pixels, labels) in enumerate(batches):
        yield prepare(jax.random.fold_in(key, place), pixels), jnp.asarray(labels)


def _prepared(key: jax.Array, images: jax.Array, style: Style, noisy: bool) -> jax.Array:
    return normalise(add_noise(key, images, style) if noisy else images, style)


def _memory_batches(split: ImageSplit, batch_size: int, limit: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = evenly_spaced(np.arange(len(split)), limit)
    rows = np.random.default_rng(0).permutation(rows)
    size = max(min(batch_size, len(rows)), 1)
    for start in range(0, len(rows) - size + 1, size):
        chosen = split.take(rows[start : start + size])
        yield chosen.images, chosen.labels

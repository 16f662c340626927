"""Decoded images and labels kept in the user's cache folder, so that only the first start decodes."""

import hashlib
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np

from ghn_jax.files import cache_folder, cached
from ghn_jax.images.image_set import ImageSplit


def cached_arrays(key: str, make: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The arrays stored under `key`, else those that `make()` returns, which are then stored.

    A damaged entry is made anew; one that cannot be written only costs the time of making it again.

    Args:
      key: what the arrays depend on; two keys are two entries.
      make: makes the arrays.
    """
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return cached(cache_folder("images") / f"{name}.arrays", lambda: list(make()), _write, _read)


def cached_split(key: str, decode: Callable[[], ImageSplit]) -> ImageSplit:
    """The split stored under `key`, else `decode()`, which is then stored."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        split = decode()
        return split.images, split.labels

    return ImageSplit(*cached_arrays(key, make))


def _write(file: BinaryIO, arrays: list[np.ndarray]) -> None:
    np.save(file, np.int64(len(arrays)))
    for array in arrays:
        np.save(file, array, allow_pickle=False)


def _read(file: BinaryIO) -> list[np.ndarray]:
    return [np.load(file, allow_pickle=False) for _ in range(np.load(file, allow_pickle=False))]

"""Decoded images kept in the user's cache folder, so that only the first start decodes."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import numpy as np

from ghn_jax.images.image_set import ImageSplit


def cache_folder() -> pathlib.Path:
    """`GHN_JAX_CACHE`, or ghn_jax in `XDG_CACHE_HOME`, or in ~/.cache."""
    if "GHN_JAX_CACHE" in os.environ:
        return pathlib.Path(os.environ["GHN_JAX_CACHE"])
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "ghn_jax"


def cached_arrays(key: str, names: tuple[str, ...], make: Callable[[], tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """The arrays stored under `key`, else those that `make()` returns, which are then stored.

    An entry appears in one rename, so that a run that is killed, or two at once, leave nothing half-written. A folder
    that cannot be written to only costs the time of making them again.
    """
    folder = cache_folder() / "images" / hashlib.sha256(key.encode()).hexdigest()[:24]
    with contextlib.suppress(OSError, ValueError):
        return [np.load(folder / f"{name}.npy") for name in names]
    arrays = make()
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix="new-"))
        try:
            for name, array in zip(names, arrays, strict=True):
                np.save(new / f"{name}.npy", array)
            (new / "source.txt").write_text(key + "\n")
            os.replace(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return list(arrays)


def cached_split(key: str, decode: Callable[[], ImageSplit]) -> ImageSplit:
    """The split stored under `key`, else `decode()`, which is then stored."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        split = decode()
        return split.images, split.labels

    return ImageSplit(*cached_arrays(key, ("images", "labels"), make))

"""Labelled pictures at random access, still encoded: what tensorflow-datasets and folders look like to the rest."""

import dataclasses
import io
import logging
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from ghn_jax.images.cache import cached_arrays
from ghn_jax.images.image_set import ImageSplit

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

SAID_EVERY = 30.0
"""Seconds between two lines about long reading."""

CHUNK = 2_000
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


class Records(Protocol):
    """Encoded pictures with labels; picklable, since decoding workers receive it."""

    labels: np.ndarray

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Encoded pictures (JPEG, PNG, ..) of the given rows."""
        ...


@dataclasses.dataclass(eq=False)
class FolderRecords:
    """Files of a folder that holds one folder per class; classes are numbered in the order of their names."""

    files: list[pathlib.Path]
    labels: np.ndarray

    @classmethod
    def scan(cls, folder: pathlib.Path, classes: Sequence[str]) -> "FolderRecords":
        """Finds the pictures.

        Raises:
          ValueError: for a class folder that is missing, holds no pictures or is not in `classes`; for a picture that
            is empty or no regular file.
        """
        unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes)
        if unknown:
            raise ValueError(f"{folder} has the class {unknown[0]!r}, which the training folder has not")
        files: list[pathlib.Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            pictures = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
            if not pictures:
                raise ValueError(f"{folder / name} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
            for picture_file in pictures:
                if not picture_file.is_file():
                    raise ValueError(f"{picture_file} is no regular file: remove it from the set")
                if not picture_file.stat().st_size:
                    raise ValueError(f"{picture_file} is empty: remove it from the set, or restore it")
            files += pictures
            labels += [label] * len(pictures)
        return cls(files, np.array(labels, np.int32))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The files as they are."""
        return [self.files[row].read_bytes() for row in rows]


@dataclasses.dataclass(eq=False)
class TfdsRecords:
    """One split of a tensorflow-datasets set; its features ``image`` and ``label`` are used."""

    source: Any
    labels: np.ndarray

    @classmethod
    def open(cls, source: Any, key: str) -> "TfdsRecords":
        """Reads the labels of all records of an undecoded data source (once: they are cached under `key`)."""

        def read_labels() -> tuple[np.ndarray]:
            starts = _shown(range(0, len(source), CHUNK), f"reading the labels of {len(source):,} images, once")
            labels = [int(r["label"]) for start in starts for r in _rows(source, start)]
            return (np.array(labels, np.int32),)

        return cls(source, *cached_arrays(f"labels {key} {len(source)}", read_labels))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Encoded pictures."""
        return [record["image"] for record in self.source.__getitems__([int(row) for row in rows])]


def _rows(source: Any, start: int) -> list[dict[str, Any]]:
    return source.__getitems__(list(range(start, min(start + CHUNK, len(source)))))


def _shown(steps: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
    """The steps; the log says what is done, and how far it is every half minute."""
    logger.info("%s", what)
    said = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - said >= SAID_EVERY:
            said = time.monotonic()
            logger.info("%s: %d%s", what, done, "" if total is None else f" of {total}")
        yield step


def picture(encoded: bytes) -> Image.Image:
    """An RGB picture of any mode; grey becomes three equal channels."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def centre_square(image: Image.Image, image_size: int) -> np.ndarray:
    """The largest central square, resized to uint8 (image_size, image_size, 3)."""
    width, height = image.size
    side = min(width, height)
    if (width, height) == (image_size, image_size):
        return np.asarray(image)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box, reducing_gap=3))


def decode_all(records: Records, image_size: int) -> ImageSplit:
    """All pictures in memory, as central squares of the given size."""
    images = np.empty((len(records), image_size, image_size, 3), np.uint8)

    def decode(start: int) -> None:
        rows = range(start, min(start + CHUNK, len(records)))
        for row, encoded in zip(rows, records.read(rows), strict=True):
            images[row] = centre_square(picture(encoded), image_size)

    with ThreadPoolExecutor() as pool:
        starts = range(0, len(records), CHUNK)
        list(_shown(pool.map(decode, starts), f"decoding {len(records):,} images", len(starts)))
    return ImageSplit(images, records.labels)

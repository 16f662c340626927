"""Labelled pictures at random access, still encoded: what tensorflow-datasets and folders look like to the rest."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from ghn_jax.images.cache import cached_arrays
from ghn_jax.images.decoding import decoded
from ghn_jax.images.image_set import ImageSplit

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

SAID_EVERY = 30.0
"""Seconds between two lines about long reading."""

CHUNK = 2_000
NAMED_AT_MOST = 10

BadImages = Literal["refuse", "skip"]
"""What becomes of a set with pictures that cannot be read: an error that names them, or a set without them."""


class Records(Protocol):
    """Encoded pictures with labels; picklable, since decoding workers receive it.

    Attributes:
      labels: int32 (B,).
      skipped: pictures that are left out because they cannot be read.
    """

    labels: np.ndarray
    skipped: int

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Encoded pictures (JPEG, PNG, ..) of the given rows.

        Raises:
          ValueError: for one that cannot be read; the message names it.
        """
        ...

    def name(self, row: int) -> str:
        """Where a picture stands, for messages."""
        ...

    def check(self, image: Image.Image) -> None:
        """Raises ValueError for a decoded picture that is not of the shape that the set declares."""
        ...

    def take(self, rows: np.ndarray) -> "Records":
        """The given rows; all others count as skipped."""
        ...


def picture(records: Records, row: int) -> Image.Image:
    """One picture as upright RGB.

    Raises:
      ValueError: for one that cannot be read or decoded; the message names it.
    """
    return _decoded(records, row, records.read([row])[0])


def _decoded(records: Records, row: int, encoded: bytes) -> Image.Image:
    try:
        image = decoded(encoded)
        records.check(image)
    except ValueError as error:
        raise ValueError(f"{records.name(row)}: {error}") from error
    return image


def shown(steps: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
    """The steps; the log says what is done, and how far it is every half minute."""
    logger.info("%s", what)
    said = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - said >= SAID_EVERY:
            said = time.monotonic()
            logger.info("%s: %d%s", what, done, "" if total is None else f" of {total}")
        yield step


def centre_square(image: Image.Image, image_size: int) -> np.ndarray:
    """The largest central square, resized to uint8 (image_size, image_size, 3)."""
    width, height = image.size
    side = min(width, height)
    if (width, height) == (image_size, image_size):
        return np.asarray(image)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box, reducing_gap=3))


def decode_all(records: Records, image_size: int, bad_images: BadImages = "refuse") -> ImageSplit:
    """All pictures in memory, as central squares of the given size.

    Args:
      records: the pictures.
      image_size: height and width.
      bad_images: what to do about pictures that cannot be read; those that are skipped are named in the log.

    Raises:
      ValueError: for pictures that cannot be read, all of them in one message.
    """
    images = np.empty((len(records), image_size, image_size, 3), np.uint8)

    def decode(row: int, image: Image.Image) -> None:
        images[row] = centre_square(image, image_size)

    faults = _for_all(records, decode)
    if not faults:
        return ImageSplit(images, records.labels)
    settle(list(faults.values()), len(records), bad_images)
    kept = np.delete(np.arange(len(records)), list(faults))
    return ImageSplit(images[kept], records.labels[kept])


def readable_rows(records: Records, key: str) -> np.ndarray:
    """Rows of the pictures that can be read; all are decoded to find out, once: the rows are cached under `key`."""

    def find() -> tuple[np.ndarray]:
        faults = _for_all(records, lambda *_: None)
        settle(list(faults.values()), len(records), "skip")
        return (np.delete(np.arange(len(records)), list(faults)),)

    return cached_arrays(f"readable {key} {len(records)}", find)[0]


def settle(faults: Sequence[str], count: int, bad_images: BadImages) -> None:
    """Refuses bad pictures or says in the log that they are skipped.

    Args:
      faults: for each of them, its name and what is wrong.
      count: of all pictures.
      bad_images: which of both.

    Raises:
      ValueError: if there are any, and they are not to be skipped.
    """
    if not faults:
        return
    more = f"; and {len(faults) - NAMED_AT_MOST:,} more" if len(faults) > NAMED_AT_MOST else ""
    listed = "; ".join(faults[:NAMED_AT_MOST]) + more
    if bad_images == "skip":
        logger.warning("%d of %d pictures are skipped: %s", len(faults), count, listed)
        return
    raise ValueError(
        f"{len(faults):,} of {count:,} pictures cannot be read: {listed}. "
        "Remove or replace them, or leave them out by --bad-images=skip"
    )


class _Use(Protocol):
    def __call__(self, row: int, image: Image.Image, /) -> None: ...


def _for_all(records: Records, use: _Use) -> Mapping[int, str]:
    """Hands every decoded picture to `use`, in threads; returns the reason for each row that cannot be read."""
    faults: dict[int, str] = {}

    def visit(start: int) -> None:
        rows = range(start, min(start + CHUNK, len(records)))
        for row, encoded in zip(rows, _read(records, rows, faults), strict=True):
            if encoded is None:
                continue
            try:
                image = _decoded(records, row, encoded)
            except ValueError as error:
                faults[row] = str(error)
            else:
                use(row, image)

    with ThreadPoolExecutor() as pool:
        starts = range(0, len(records), CHUNK)
        for _ in shown(pool.map(visit, starts), f"decoding {len(records):,} images", len(starts)):
            pass
    return dict(sorted(faults.items()))


def _read(records: Records, rows: Sequence[int], faults: dict[int, str]) -> list[bytes | None]:
    """Encoded pictures of the rows; those that cannot be read are None and stand in `faults`."""
    try:
        return [*records.read(rows)]
    except ValueError:
        pass
    found: list[bytes | None] = []
    for row in rows:
        try:
            found += records.read([row])
        except ValueError as error:
            faults[row] = str(error)
            found.append(None)
    return found

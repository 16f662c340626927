"""Sets that do not fit in memory: decoded by worker processes through grain, augmented here and on the device."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags
from PIL import Image

from ghn_jax.images.image_set import Style
from ghn_jax.images.records import Records, centre_square, picture

_PROFILING = "grain_enable_multiprocess_worker_profiling"

HostBatch = tuple[np.ndarray, np.ndarray]
"""Images uint8 (B, H, W, 3) and labels int32 (B,)."""

RESIZE_RATIO = 256 / 224
"""Test images are the centre 224 of a picture whose shorter side is 256 (ImageNet)."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ImageStream:
    """A set read from storage.

    Attributes:
      name: as it was asked for.
      train, test: records of the official splits.
      train_rows, val_rows: rows of `train` that train and that validate.
      num_classes: K.
      image_size: height and width that batches have.
      style: statistics and augmentation.
      workers: decoding processes.
      skipped: pictures left out because they cannot be read.
    """

    name: str
    train: Records
    test: Records
    train_rows: np.ndarray
    val_rows: np.ndarray
    num_classes: int
    image_size: int
    style: Style
    workers: int
    skipped: int = 0

    def train_batches(self, batch_size: int, seed: int, first_step: int = 0) -> Iterator[HostBatch]:
        """Endless shuffled batches of random resized crops; batch i is the same whatever `first_step` is."""
        rows = grain.MapDataset.source(_Rows(self.train, self.train_rows)).shuffle(seed=seed).repeat()
        crops = rows.random_map(_RandomCrop(self.image_size), seed=seed)
        batches = crops.batch(batch_size, drop_remainder=True, batch_fn=_stack)[first_step:]
        return iter(_in_workers(batches, self.workers))

    def eval_batches(self, split: str, batch_size: int, limit: int | None = None) -> Iterator[HostBatch]:
        """Central crops in a fixed random order, incomplete last batch left out; `limit` takes that many of them.

        Raises:
          ValueError: for an unknown split.
        """
        if split not in ("train", "val", "test"):
            raise ValueError(f"unknown split {split!r} of the images {self.name!r}: use train, val or test")
        everything = np.arange(len(self.test)) if split == "test" else getattr(self, f"{split}_rows")
        records = self.test if split == "test" else self.train
        rows = np.random.default_rng(0).permutation(evenly_spaced(everything, limit))
        crops = grain.MapDataset.source(_Rows(records, rows)).map(_CentreCrop(self.image_size))
        return iter(_in_workers(crops.batch(batch_size, drop_remainder=True, batch_fn=_stack), self.workers))


def evenly_spaced(rows: np.ndarray, limit: int | None) -> np.ndarray:
    """At most `limit` of the rows, evenly spaced (test sets are often sorted by class)."""
    if limit is None or limit >= len(rows):
        return rows
    return rows[np.arange(limit) * len(rows) // limit]


@dataclasses.dataclass(eq=False)
class _Rows:
    """Random access for grain: picture and label."""

    records: Records
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = int(self.rows[index])
        return picture(self.records, row), int(self.records.labels[row])


@dataclasses.dataclass(frozen=True)
class _RandomCrop:
    image_size: int

    def __call__(self, element: tuple[Image.Image, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
        image, label = element
        return random_resized_crop(image, self.image_size, rng), label


@dataclasses.dataclass(frozen=True)
class _CentreCrop:
    image_size: int

    def __call__(self, element: tuple[Image.Image, int]) -> tuple[np.ndarray, int]:
        image, label = element
        larger = round(self.image_size * RESIZE_RATIO)
        edge = (larger - self.image_size) // 2
        square = centre_square(image, larger)
        return square[edge : edge + self.image_size, edge : edge + self.image_size], label


def _stack(elements: Sequence[tuple[np.ndarray, int]]) -> HostBatch:
    return np.stack([image for image, _ in elements]), np.array([label for _, label in elements], np.int32)


def _in_workers(batches: grain.MapDataset, workers: int) -> grain.IterDataset:
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    if workers and _PROFILING in flags.FLAGS:
        # grain reads this flag of its own though only absl's main function parses flags: its default is meant.
        flags.FLAGS[_PROFILING].present = True
    return stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)) if workers else stream


def random_resized_crop(image: Image.Image, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """A random 8 to 100 % of the picture's area, aspect ratio 3/4 to 4/3, as uint8 (image_size, image_size, 3)."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            box = (int(left), int(top), int(left) + w, int(top) + h)
            resized = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box, reducing_gap=3)
            return np.asarray(resized)
    return centre_square(image, image_size)

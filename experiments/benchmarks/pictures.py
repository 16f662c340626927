"""How fast pictures that do not fit in memory come: decoded, cropped and resized to 224 x 224 for training.

Beside a plain loop over the same files with Pillow, which is what decoding costs without a pipeline. Photographs of a
usual size are made for it, 500 x 375 JPEG of about 40 kB.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from ghn_jax.images import ImageStream
from ghn_jax.images.folders import open_folder
from ghn_jax.images.image_set import Style
from ghn_jax.images.stream import random_resized_crop
from ghn_jax.runs.cores import available_cores

PICTURES, CLASSES = 1_024, 2
"""An epoch; an eighth as many more test."""

IMAGE_SIZE, BATCH_SIZE = 224, 64


def run(repeats: int) -> dict[str, float]:
    """Pictures a second of each way, medians of epochs, and what memory an epoch adds."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = _make_pictures(folder)
        plain = _rate(lambda: _plain(files), repeats)
        print(f"{'Pillow alone, one process':<38}{plain:8.0f} pictures a second")
        found = {"plain_pictures_per_second": plain}
        for workers in (0, available_cores()):
            stream = _stream(folder, workers)
            batches = stream.train_batches(BATCH_SIZE, 0)
            next(batches)  # starts the workers
            before = _resident()
            rate = _rate(lambda batches=batches: _epoch(batches), repeats)
            grown = (_resident() - before) / repeats
            what = f"ghn_jax, {workers} worker processes" if workers else "ghn_jax, in the process itself"
            print(f"{what:<38}{rate:8.0f} pictures a second, {grown / 1e6:+.1f} MB an epoch")
            key = "workers" if workers else "in_process"
            del batches  # ends its workers
            found |= {f"{key}_pictures_per_second": rate, f"{key}_megabytes_an_epoch": grown / 1e6}
    return found


def _make_pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """Smooth noise, as JPEG, in folders of classes; the training pictures."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(PICTURES + PICTURES // 8):
        part = "train" if number < PICTURES else "val"
        file = folder / part / f"class_{number % CLASSES}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (75, 100, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
        if part == "train":
            files.append(file)
    return files


def _stream(folder: pathlib.Path, workers: int) -> ImageStream:
    """The pictures as a set too large for memory is read."""
    train, test, classes, _ = open_folder(folder, "refuse")
    rows = np.arange(len(train))
    style = Style(mean=(0, 0, 0), std=(1, 1, 1))  # of no consequence for crops
    return ImageStream("pictures", train, test, rows, rows[:0], classes, IMAGE_SIZE, style, workers)


def _plain(files: list[pathlib.Path]) -> int:
    rng = np.random.default_rng(0)
    for file in files:
        with Image.open(file) as image:
            random_resized_crop(image.convert("RGB"), IMAGE_SIZE, rng)
    return len(files)


def _epoch(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> int:
    return sum(len(next(batches)[1]) for _ in range(PICTURES // BATCH_SIZE))


def _rate(epoch: Callable[[], int], repeats: int) -> float:
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        count = epoch()
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def _resident() -> int:
    """Bytes that this process and its children hold; 0 where /proc does not tell."""
    total = 0
    for process in [pathlib.Path("/proc/self"), *_children()]:
        try:
            total += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def _children() -> list[pathlib.Path]:
    found = []
    for listing in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # of a thread that has just ended
            found += [pathlib.Path("/proc", child) for child in listing.read_text().split()]
    return found

"""Image sets by name."""

import hashlib
import os
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ghn_jax.images.cache import cached_split
from ghn_jax.images.image_set import ImageSet, ImageSplit, Style, measured_style
from ghn_jax.images.records import FolderRecords, decode_all
from ghn_jax.images.splits import last_of_each_class, last_tenth
from ghn_jax.images.stream import ImageStream

IN_MEMORY_BYTES = 2_000_000_000
"""Sets that decode to more than this are streamed."""

IMAGENET_VAL_PER_CLASS = 50

DIGITS_TEST_EVERY = 5
"""Every fifth digit tests: there is no official split, and neighbours in the file share a writer."""

_STYLES = {
    "cifar10": Style(mean=(0.49139968, 0.48215827, 0.44653124), std=(0.24703233, 0.24348505, 0.26158768)),
    "cifar100": Style(mean=(0.50707516, 0.48654887, 0.44091784), std=(0.26733429, 0.25643846, 0.27615047)),
    "imagenet2012": Style(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), noise_std=0.18),
}


def load_images(
    name: str = "digits", image_size: int | None = None, data_dir: str | None = None, workers: int | None = None
) -> ImageSet | ImageStream:
    """The image classification set `name`.

    Args:
      name: ``digits`` (embedded), ``folder:PATH`` (PATH/train and PATH/val, each one folder per class) or any
        prepared set of tensorflow-datasets, such as ``cifar10``, ``cifar100``, ``imagenet2012``.
      image_size: height and width to resize to; None is the set's own size, or 32 (224 for ImageNet) if it has none.
      data_dir: folder of prepared tensorflow-datasets sets.
      workers: decoding processes of streamed sets; None is one per core.

    Raises:
      ValueError: for a missing or unsuitable set; the message says how to get it.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if name == "digits":
        return load_digit_images(image_size or 32)
    if name.startswith("folder:"):
        train, test, classes, key = _open_folder(pathlib.Path(name.removeprefix("folder:")))
        own_size, rows, style = 32, last_of_each_class(train.labels), None
    else:
        from ghn_jax.images.tfds_sets import open_tfds, tfds_records  # slow to import; other sets do without

        prepared = open_tfds(name, data_dir)
        base = name.partition("/")[0].partition(":")[0]
        train, test = tfds_records(prepared)
        classes, key, style = prepared.num_classes, prepared.name, _STYLES.get(base)
        if base == "imagenet2012":
            own_size, rows = 224, last_of_each_class(train.labels, IMAGENET_VAL_PER_CLASS)
        else:
            own_size, rows = prepared.image_size or 32, last_tenth(train.labels)
    size = image_size or own_size
    if (len(train) + len(test)) * size * size * 3 > IN_MEMORY_BYTES:
        count = workers if workers is not None else os.cpu_count() or 1
        return ImageStream(name, train, test, *rows, classes, size, style or _STYLES["imagenet2012"], count)
    official = cached_split(f"{key} {size} train {len(train)}", lambda: decode_all(train, size))
    tested = cached_split(f"{key} {size} test {len(test)}", lambda: decode_all(test, size))
    training = official.take(rows[0])
    own_style = style or measured_style(training.images)
    return ImageSet(name, training, official.take(rows[1]), tested, classes, own_style)


def load_digit_images(image_size: int = 32) -> ImageSet:
    """The embedded set: scikit-learn's real 8 x 8 handwritten digits (1,797 of them, UCI ML repository).

    1,294 train, 143 validate and 360 test, upscaled bilinearly to (image_size, image_size, 3) uint8.
    """
    pixels, target = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    size = (image_size, image_size)
    resized = np.stack([np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BILINEAR)) for i in grey])
    images = np.repeat(resized[..., None], 3, axis=3)
    everything = ImageSplit(images, np.asarray(target, np.int32))
    rows = np.arange(len(images))
    is_test = rows % DIGITS_TEST_EVERY == 0
    train_rows, val_rows = last_tenth(rows[~is_test])
    train = everything.take(rows[~is_test][train_rows])
    return ImageSet(
        name="digits",
        train=train,
        val=everything.take(rows[~is_test][val_rows]),
        test=everything.take(rows[is_test]),
        num_classes=10,
        style=measured_style(train.images, flip=False),
    )


def _open_folder(folder: pathlib.Path) -> tuple[FolderRecords, FolderRecords, int, str]:
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise ValueError(f"{folder / part} is missing: folder:PATH needs PATH/train/CLASS/* and PATH/val/CLASS/*")
    classes = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())
    if len(classes) < 2:
        raise ValueError(f"{folder / 'train'} needs one folder for each of at least 2 classes, found {classes}")
    train = FolderRecords.scan(folder / "train", classes)
    test = FolderRecords.scan(folder / "val", classes)
    return train, test, len(classes), f"{folder.resolve()} {_stamp(train)} {_stamp(test)}"


def _stamp(records: FolderRecords) -> str:
    """Changes when a file is added, removed, renamed or written to: what a cached copy depends on."""
    digest = hashlib.sha256()
    for file in records.files:
        digest.update(f"{file} {file.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]

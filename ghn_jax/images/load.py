"""Image sets by name."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import get_args

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ghn_jax.images.cache import cached_split
from ghn_jax.images.folders import open_folder
from ghn_jax.images.image_set import ImageSet, ImageSplit, Style, measured_style
from ghn_jax.images.records import BadImages, Records, decode_all, readable_rows
from ghn_jax.images.splits import Rows, last_of_each_class, last_tenth
from ghn_jax.images.stream import ImageStream

_LOG = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2_000_000_000
"""Sets that decode to more than this are streamed."""

IMAGENET_VAL_PER_CLASS = 50

DIGITS_TEST_EVERY = 5
"""Every fifth digit tests: there is no official split, and neighbours in the file share a writer."""

_DECODING = "decoding 2"
"""In the names of cached arrays; changes when the same file is decoded to other pixels than before."""

_WRITING = frozenset({"binary_alpha_digits", "cmaterdb", "emnist", "kmnist", "mnist", "omniglot", "svhn_cropped"})
"""Sets of written signs, which mirrored are other signs or none."""

_IMAGENET = Style(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), noise_std=0.18)

_STYLES = {
    "cifar10": Style(mean=(0.49139968, 0.48215827, 0.44653124), std=(0.24703233, 0.24348505, 0.26158768)),
    "cifar100": Style(mean=(0.50707516, 0.48654887, 0.44091784), std=(0.26733429, 0.25643846, 0.27615047)),
    "imagenet2012": _IMAGENET,
}


def load_images(
    name: str = "digits",
    image_size: int | None = None,
    data_dir: str | None = None,
    workers: int | None = None,
    bad_images: BadImages = "refuse",
) -> ImageSet | ImageStream:
    """The image classification set `name`.

    Pictures of any size become central squares of `image_size`; whatever their colours, networks get three channels
    (`ghn_jax.images.decoding`).

    Args:
      name: ``digits`` (embedded), ``folder:PATH`` (PATH/train and PATH/val, each one folder per class; without
        PATH/train the set can only be evaluated on, and is normalised as ImageNet) or any prepared set of
        tensorflow-datasets, such as ``cifar10``, ``fashion_mnist``, ``imagenet2012``.
      image_size: height and width to resize to; None is the set's own size, or 32 (224 for ImageNet) if it has none.
      data_dir: folder of prepared tensorflow-datasets sets.
      workers: decoding processes of streamed sets; None is one per core.
      bad_images: ``refuse`` names the pictures that cannot be read: all of them at the first start if the
        set fits in memory; else the empty and irregular ones at the start, and a damaged one when it is first read.
        ``skip`` leaves them out, names them in the log and counts them in `skipped`; for a set that does not fit in
        memory, all pictures are decoded once to find them.

    Raises:
      ValueError: for a missing, damaged or unsuitable set; the message names the file, or says how to get the set.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if bad_images not in get_args(BadImages):
        raise ValueError(f"bad images are 'refuse'd or 'skip'ped, got {bad_images!r}")
    if bad_images == "skip" and name == "digits":
        raise ValueError("there are no bad images to be skipped in 'digits', which are embedded")
    if name == "digits":
        return load_digit_images(image_size or 32)
    if name.startswith("folder:"):
        source = _folder(pathlib.Path(name.removeprefix("folder:")), bad_images)
    else:
        source = _tfds(name, data_dir)
    size = image_size or source.own_size
    train, test = source.train, source.test
    if (len(train) + len(test)) * size * size * 3 > IN_MEMORY_BYTES:
        if bad_images == "skip":
            train = train.take(readable_rows(train, f"{_DECODING} {source.key} train"))
            test = test.take(readable_rows(test, f"{_DECODING} {source.key} test"))
        skipped = _counted(name, train.skipped + test.skipped)
        rows = source.split(train.labels)
        style = source.style or _IMAGENET
        count = workers if workers is not None else os.cpu_count() or 1
        return ImageStream(name, train, test, *rows, source.num_classes, size, style, count, skipped)
    official, tested = (
        cached_split(
            f"{_DECODING} {source.key} {size} {part} {len(records)} {bad_images}",
            functools.partial(decode_all, records, size, bad_images),
        )
        for part, records in (("train", train), ("test", test))
    )
    skipped = _counted(name, train.skipped + test.skipped + len(train) + len(test) - len(official) - len(tested))
    rows = source.split(official.labels)
    training = official.take(rows[0])
    style = source.style or (measured_style(training.images, flip=source.flip) if len(training) else _IMAGENET)
    return ImageSet(name, training, official.take(rows[1]), tested, source.num_classes, style, skipped)


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """A set before decoding: `split` finds rows of training and validation by labels; `key` is for the cache."""

    train: Records
    test: Records
    num_classes: int
    key: str
    own_size: int
    split: Callable[[np.ndarray], Rows]
    style: Style | None = None
    flip: bool = True


def _folder(folder: pathlib.Path, bad_images: BadImages) -> _Source:
    train, test, classes, key = open_folder(folder, bad_images)
    return _Source(train, test, classes, key, own_size=32, split=last_of_each_class)


def _tfds(name: str, data_dir: str | None) -> _Source:
    from ghn_jax.images.tfds_sets import open_tfds  # slow to import; other sets do without

    prepared = open_tfds(name, data_dir)
    base = name.partition("/")[0].partition(":")[0]
    imagenet = base == "imagenet2012"
    return _Source(
        prepared.train,
        prepared.test,
        prepared.num_classes,
        prepared.name,
        own_size=224 if imagenet else prepared.image_size or 32,
        split=functools.partial(last_of_each_class, count=IMAGENET_VAL_PER_CLASS) if imagenet else last_tenth,
        style=_STYLES.get(base),
        flip=base not in _WRITING,
    )


def _counted(name: str, skipped: int) -> int:
    """Says at every start how many pictures are left out."""
    if skipped:
        _LOG.warning("%s: %d pictures that cannot be read are left out", name, skipped)
    return skipped


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

"""The embedded set: scikit-learn's real 8 x 8 handwritten digits (1,797 of them, UCI ML repository)."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ghn_jax.images.image_set import ImageSet, ImageSplit, measured_style
from ghn_jax.images.splits import last_tenth

TEST_EVERY = 5
"""Every fifth digit tests: there is no official split, and neighbours in the file share a writer."""


def load_digit_images(image_size: int = 32) -> ImageSet:
    """1,294 training, 143 validation and 360 test digits, upscaled bilinearly to (image_size, image_size, 3) uint8."""
    pixels, target = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = np.stack([np.asarray(Image.fromarray(i).resize((image_size, image_size), 2)) for i in grey])
    images = np.repeat(resized[..., None], 3, axis=3)
    everything = ImageSplit(images, np.asarray(target, np.int32))
    rows = np.arange(len(images))
    is_test = rows % TEST_EVERY == 0
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

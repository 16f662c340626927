"""Images with boxes: scenes made of embedded digits, and a user's own Penn-Fudan folder."""

import dataclasses
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

MOST_OBJECTS = 4
"""Of a made scene."""

TEST_IMAGES, PERMUTATION_SEED = 50, 1111
"""Of Penn-Fudan: the last ones of a fixed permutation test."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Scenes:
    """Images of one size and what is to be found in them.

    Attributes:
      images: uint8 (N, H, W, 3).
      boxes: corners in pixels, float32 (N, M, 4), zeros for padding.
      classes: from 0 on, int32 (N, M); -1 for padding.
    """

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Scenes":
        """Some of them."""
        return Scenes(self.images[rows], self.boxes[rows], self.classes[rows])


def digit_scenes(count: int, size: int = 64, *, test: bool = False, seed: int = 0) -> Scenes:
    """Real handwritten digits of 12 to 28 pixels on a dim, uneven background; one class, boxes exact.

    Digits do not overlap. Those of test scenes are every fifth of the set, training scenes have the others.

    Args:
      count: scenes.
      size: height and width.
      test: whether to use digits that training scenes do not have.
      seed: of everything; scenes of training and test have streams of their own.
    """
    pixels, _ = load_digits(return_X_y=True)
    digits = np.asarray(pixels).reshape(-1, 8, 8) / 16
    digits = digits[np.arange(len(digits)) % 5 == 0] if test else digits[np.arange(len(digits)) % 5 != 0]
    rng = np.random.default_rng((seed, int(test)))
    images = np.empty((count, size, size, 3), np.uint8)
    boxes, classes = np.zeros((count, MOST_OBJECTS, 4), np.float32), np.full((count, MOST_OBJECTS), -1, np.int32)
    for number in range(count):
        canvas = _background(rng, size)
        taken = np.zeros((size, size), bool)
        placed = 0
        for _ in range(rng.integers(1, MOST_OBJECTS + 1)):
            side = int(rng.integers(12, 29))
            digit = Image.fromarray(digits[rng.integers(len(digits))].astype(np.float32))
            patch = np.asarray(digit.resize((side, side), Image.Resampling.BILINEAR))
            rows, columns = np.nonzero(patch > 0.15)
            if side > size or not len(rows):
                continue
            patch = patch[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            height, width = patch.shape
            top, left = (int(rng.integers(0, size - length + 1)) for length in (height, width))
            if taken[top : top + height, left : left + width].any():
                continue
            taken[top : top + height, left : left + width] = True
            colour = rng.uniform(0.6, 1.0, 3)
            part = canvas[top : top + height, left : left + width]
            part += patch[..., None] * (colour - part)
            boxes[number, placed] = left, top, left + width, top + height
            classes[number, placed] = 0
            placed += 1
        images[number] = np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    return Scenes(images, boxes, classes)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A coarse pattern and fine noise, both dim: (size, size, 3) from 0 to about 0.5."""
    coarse = Image.fromarray((255 * rng.uniform(0, 0.35, (4, 4, 3))).astype(np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
    return smooth + rng.normal(0, 0.04, (size, size, 3))


def penn_fudan(folder: pathlib.Path, size: int) -> tuple[Scenes, Scenes]:
    """Training and test scenes of a folder with PNGImages and PedMasks, longer side scaled to `size`, square.

    A box holds the pixels of one value of the mask, both ends included.

    Raises:
      ValueError: for a folder without pictures, or a picture without its mask; names it.
    """
    files = sorted((folder / "PNGImages").glob("*.png"))
    if len(files) <= TEST_IMAGES:
        raise ValueError(
            f"{folder} is no folder of Penn-Fudan: PNGImages should hold more than {TEST_IMAGES} pictures, "
            f"found {len(files)}"
        )
    found = [_pedestrians(file, folder / "PedMasks" / f"{file.stem}_mask.png", size) for file in files]
    most = max(len(boxes) for _, boxes in found)
    images = np.stack([image for image, _ in found])
    boxes = np.zeros((len(found), most, 4), np.float32)
    classes = np.full((len(found), most), -1, np.int32)
    for number, (_, own) in enumerate(found):
        boxes[number, : len(own)], classes[number, : len(own)] = own, 0
    scenes = Scenes(images, boxes, classes)
    order = np.random.default_rng(PERMUTATION_SEED).permutation(len(scenes))
    return scenes.take(order[:-TEST_IMAGES]), scenes.take(order[-TEST_IMAGES:])


def _pedestrians(file: pathlib.Path, mask_file: pathlib.Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    if not mask_file.is_file():
        raise ValueError(f"{file} has no mask: {mask_file} is missing")
    with Image.open(file) as picture, Image.open(mask_file) as mask:
        if picture.size != mask.size:
            raise ValueError(f"{mask_file} is {mask.size}, its picture {picture.size}")
        values = np.asarray(mask)
        scale = size / max(picture.size)
        width, height = (max(round(scale * side), 1) for side in picture.size)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    image = np.zeros((size, size, 3), np.uint8)
    image[:height, :width] = np.asarray(small)
    boxes = []
    for value in np.unique(values[values > 0]):
        rows, columns = np.nonzero(values == value)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return image, scale * np.asarray(boxes, np.float32).reshape(-1, 4)

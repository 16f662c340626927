"""Sets of labelled images that fit in memory."""

import dataclasses

import numpy as np

Colours = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """What belongs to the kind of images: their statistics and which changes leave the class as it is.

    Attributes:
      mean, std: of the channels of training images scaled to [0, 1].
      flip: whether mirrored images keep their class.
      crop_padding: pixels of padding for random crops at 32 x 32; scaled with the image size.
      noise_std: of the noise test, on images scaled to [0, 1].
    """

    mean: Colours
    std: Colours
    flip: bool = True
    crop_padding: int = 4
    noise_std: float = 0.08


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ImageSplit:
    """Images uint8 (B, H, W, 3) and labels int32 (B,) on the host."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        shape, kind = self.images.shape, self.images.dtype
        if kind != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"images must be uint8 (B, H, W, 3), got {kind} {shape}")
        if self.labels.shape != shape[:1]:
            raise ValueError(f"{len(self.images)} images need as many labels, got {self.labels.shape}")
        if self.labels.dtype.kind not in "iu" or self.labels.min(initial=0) < 0:
            least = self.labels.min(initial=0)
            raise ValueError(f"labels must be whole numbers from 0 on, got {self.labels.dtype} with the least {least}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "ImageSplit":
        """The given rows, in that order."""
        return ImageSplit(self.images[rows], self.labels[rows])


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ImageSet:
    """A set in memory.

    Attributes:
      name: as it was asked for.
      train, val, test: `val` is a part of the official training images, and no part of `train`.
      num_classes: K.
      style: statistics and augmentation.
      skipped: pictures left out because they cannot be read.
    """

    name: str
    train: ImageSplit
    val: ImageSplit
    test: ImageSplit
    num_classes: int
    style: Style
    skipped: int = 0

    @property
    def image_size(self) -> int:
        """Height and width."""
        return self.train.images.shape[1]

    def split(self, name: str) -> ImageSplit:
        """``train``, ``val`` or ``test``; raises ValueError for another name."""
        if name not in ("train", "val", "test"):
            raise ValueError(f"unknown split {name!r} of the images {self.name!r}: use train, val or test")
        return getattr(self, name)


def measured_style(images: np.ndarray, **changes: bool | int | float) -> Style:
    """Style with the mean and standard deviation of the given training images uint8 (B, H, W, 3)."""
    counts = [np.bincount(images[..., channel].reshape(-1), minlength=256) for channel in range(3)]
    values = np.arange(256) / 255
    means = [float(count @ values / count.sum()) for count in counts]
    squares = [float(count @ values**2 / count.sum()) for count in counts]
    stds = [max((square - mean**2) ** 0.5, 1e-3) for square, mean in zip(squares, means, strict=True)]
    return dataclasses.replace(Style(mean=_three(means), std=_three(stds)), **changes)


def _three(values: list[float]) -> Colours:
    return values[0], values[1], values[2]

"""Which axis of the input is which: images, space or channels."""

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from ghn_jax.graphs.tracing.axes import BATCH, CHANNEL, SPACE

MOST_CHANNELS_FIRST = 4
"""Without a layout, an image's first axis is taken for its channels only up to this length."""

_IMAGES_TRACED = 2  # more than 1, or statistics over images could not be told from statistics within one
_IMAGE_AXES = 3


def batch_axes(input_shape: Sequence[SupportsIndex], layout: str | None) -> tuple[tuple[int, ...], str]:
    """Shape of a batch and one label per axis, from the shape of an image or a batch.

    Args:
      input_shape: of one image or of a batch.
      layout: one letter per axis, of which N (or B) are the images and C the channels; the axis of the images may be
        missing on either side. None to read the shape by itself: three axes are an image, four a batch of images.

    Raises:
      ValueError: for sizes that are no positive integers, a layout that does not fit, or a shape that may have its
        channels first or last.
    """
    given: Any = input_shape
    sizes = tuple(given) if isinstance(given, Iterable) else ()
    shape = tuple(int(size) for size in sizes if _is_size(size))
    if not shape or len(shape) < len(sizes):
        raise ValueError(f"input_shape {given}: every axis must be a positive integer, as in (32, 32, 3)")
    if layout is not None:
        return _from_layout(shape, layout)
    shape = shape if len(shape) == _IMAGE_AXES + 1 else (_IMAGES_TRACED, *shape)
    if len(shape) == _IMAGE_AXES + 1:
        return shape, BATCH + (CHANNEL + 2 * SPACE if _channels_first(shape[1:]) else 2 * SPACE + CHANNEL)
    return shape, (BATCH + SPACE * (len(shape) - 2) + CHANNEL)[: len(shape)]


def _is_size(size: object) -> bool:
    """Whether a value is a positive integer, NumPy's included."""
    return isinstance(size, SupportsIndex) and not isinstance(size, bool) and int(size) >= 1


def _from_layout(shape: tuple[int, ...], layout: str) -> tuple[tuple[int, ...], str]:
    """Batch and labels of a stated layout."""
    letters = layout.upper().replace("N", BATCH)
    if not letters.isalpha() or len(set(letters)) < len(letters) or CHANNEL not in letters:
        raise ValueError(f"layout {layout!r}: one letter an axis, each once, C among them, such as 'NHWC' or 'HWC'")
    if BATCH not in letters:
        letters = BATCH + letters
    if len(shape) == len(letters) - 1 and letters[0] == BATCH:
        shape = (_IMAGES_TRACED, *shape)
    if len(shape) != len(letters):
        raise ValueError(f"layout {layout!r} does not fit input_shape {shape} of {len(shape)} axes")
    return shape, "".join(letter if letter in (BATCH, CHANNEL) else SPACE for letter in letters)


def _channels_first(image: tuple[int, ...]) -> bool:
    """Whether the channels of an image are its first axis, where its shape can only mean one thing."""
    first, middle, last = image
    if middle == last and first < middle and first <= MOST_CHANNELS_FIRST:
        return True  # (3, 32, 32)
    may_be_first = first <= MOST_CHANNELS_FIRST or middle == last
    may_be_last = last <= MOST_CHANNELS_FIRST and last < max(first, middle)
    if may_be_first and not may_be_last:
        raise ValueError(
            f"input_shape {image} may have its channels first or last: say which with layout='CHW' or layout='HWC' "
            "(of a batch 'NCHW' or 'NHWC')"
        )
    return False

"""Which images train, which validate: rows of a set by label, deterministic."""

from typing import Literal

import numpy as np

from ghn_jax.images.image_set import ImageSplit

Rows = tuple[np.ndarray, np.ndarray]


def last_tenth(labels: np.ndarray) -> Rows:
    """Rows of training and validation images: the last tenth validates (CIFAR: the last 5,000)."""
    cut = len(labels) - max(len(labels) // 10, 1)
    rows = np.arange(len(labels))
    return rows[:cut], rows[cut:]


def last_of_each_class(labels: np.ndarray, count: int | None = None) -> Rows:
    """The last `count` rows of every class validate (ImageNet: 50); None is a tenth of each class, at least one.

    Raises:
      ValueError: if a class would have no training image left.
    """
    is_val = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        held_out = max(len(rows) // 10, 1) if count is None else count
        if held_out >= len(rows):
            raise ValueError(
                f"class {label} has {len(rows)} training images: {held_out} for validation leave none to train on"
            )
        is_val[rows[-held_out:]] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def few_shot(
    split: ImageSplit, per_class: int, seed: int = 0, *, choice: Literal["random", "first"] = "random"
) -> ImageSplit:
    """A subset of `per_class` images of each class, in the order of the split.

    Args:
      split: the images.
      per_class: images of each class.
      seed: of a random choice.
      choice: ``random``, or ``first``: the first of each class, as in the paper (fine-tuning on 100-shot CIFAR-10).

    Raises:
      ValueError: for an unknown choice, or if a class has fewer images.
    """
    if choice not in ("random", "first"):
        raise ValueError(f"few-shot images are chosen 'random' or 'first', got {choice!r}")
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(split.labels):
        rows = np.flatnonzero(split.labels == label)
        if per_class < 1 or len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} images: cannot take {per_class} of each class")
        chosen.append((rng.permutation(rows) if choice == "random" else rows)[:per_class])
    return split.take(np.sort(np.concatenate(chosen)))

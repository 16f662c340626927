"""Where the axes of a traced value come from, through reshapes, transposes and broadcasts.

A value has one `Axis` per dimension: the pieces that it is made of, major first. Pieces of a parameter are labelled
with the leaf's axis, pieces of data with one of the letters below; a broadcast dimension has no piece.
"""

import math
from collections.abc import Sequence

Label = int | str
Axis = tuple[tuple[Label, int], ...]
Axes = tuple[Axis, ...]

BATCH, SPACE, CHANNEL, UNKNOWN = "B", "S", "C", "?"


def leaf_axes(shape: Sequence[int]) -> Axes:
    """Axes of an untouched parameter leaf."""
    return tuple(((i, n),) for i, n in enumerate(shape))


def data_axes(labels: str, shape: Sequence[int]) -> Axes:
    """Axes of data, one letter per dimension."""
    return tuple(((label, n),) for label, n in zip(labels, shape, strict=True))


def labels_of(axes: Sequence[Axis]) -> set[Label]:
    """Labels of all pieces longer than 1."""
    return {label for axis in axes for label, n in axis if n > 1}


def all_labels(axes: Sequence[Axis]) -> set[Label]:
    """Labels of all pieces."""
    return {label for axis in axes for label, _ in axis}


def reshape(axes: Axes, old: Sequence[int], new: Sequence[int]) -> Axes:
    """Axes after a row-major reshape; pieces are split where a new dimension ends inside them."""
    if 0 in old:
        return tuple(((UNKNOWN, size),) for size in new)
    result: list[Axis] = []
    i = j = 0
    while i < len(old) or j < len(new):
        # The smallest run of old dimensions that holds as many elements as a run of new ones.
        first_old, first_new = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        group, sizes = axes[first_old:i], new[first_new:j]
        if len(group) == 1 and len(sizes) == 1:
            result.append(group[0])
        else:
            result.extend(_distribute(group, old[first_old:i], sizes))
    return tuple(result)


def _distribute(group: Sequence[Axis], old: Sequence[int], sizes: Sequence[int]) -> list[Axis]:
    """Pieces of a run of dimensions dealt out, major first, to dimensions of other sizes."""
    pieces: list[tuple[Label | None, int]] = []
    for axis, size in zip(group, old, strict=True):
        if axis and math.prod(n for _, n in axis) == size:
            pieces.extend((label, n) for label, n in axis if n > 1)
        elif size > 1:
            pieces.append((axis[0][0] if axis else None, size))
    labels = {label for label, _ in pieces}
    result: list[Axis] = []
    for size in sizes:
        parts: list[tuple[Label, int]] = []
        need = size
        while need > 1:
            label, n = pieces.pop(0)
            taken = n if need % n == 0 else need
            if n % taken:  # a piece straddles two dimensions
                return [((_common(labels), s),) for s in sizes]
            if n > taken:
                pieces.insert(0, (label, n // taken))
            need //= taken
            if label is not None:
                parts.append((label, taken))
        result.append(tuple(parts))
    return result


def _common(labels: set[Label | None]) -> Label:
    """The one label of several pieces, else unknown."""
    known = labels - {None}
    label = next(iter(known)) if len(known) == 1 else None
    return UNKNOWN if label is None else label


def broadcast_in_dim(axes: Axes, old: Sequence[int], new: Sequence[int], dimensions: Sequence[int]) -> Axes:
    """Axes after `lax.broadcast_in_dim`."""
    result: list[Axis] = [()] * len(new)
    for axis, size, place in zip(axes, old, dimensions, strict=True):
        if size == new[place]:
            result[place] = axis
    return tuple(result)


def drop(axes: Axes, dimensions: Sequence[int]) -> Axes:
    """Axes without some dimensions."""
    gone = {d % len(axes) for d in dimensions}
    return tuple(axis for i, axis in enumerate(axes) if i not in gone)


def resize(axis: Axis, size: int) -> Axis:
    """An axis after slicing, padding or concatenation changed its size."""
    if not axis or math.prod(n for _, n in axis) == size:
        return axis
    return ((axis[0][0], size),) if len({label for label, _ in axis}) == 1 else ((UNKNOWN, size),)


def merge(first: Axes, second: Axes) -> Axes:
    """Axes of an elementwise result: of the operand that knows more, dimension by dimension; scalars know nothing."""
    if len(first) != len(second):
        return max(first, second, key=len)
    return tuple(
        a if len(labels_of([a])) >= len(labels_of([b])) and a else b for a, b in zip(first, second, strict=True)
    )

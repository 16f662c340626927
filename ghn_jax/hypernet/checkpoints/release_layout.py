"""How tensors of the public release correspond to ours: names, shapes and changes of layout."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]
Path = tuple[str, ...]


class ReleaseTensor(NamedTuple):
    """One tensor: its name and shape in the release, our path, and the change of layout in both directions."""

    name: str
    shape: tuple[int, ...]
    path: Path
    to_ours: Transform
    to_release: Transform


def _same(array: np.ndarray) -> np.ndarray:
    return array


def plain(name: str, path: Path, *shape: int) -> ReleaseTensor:
    """A tensor that is stored as ours."""
    return ReleaseTensor(name, shape, path, _same, _same)


def grid(name: str, path: Path, shape: tuple[int, ...], axes: tuple[int, ...], order: tuple[int, ...]) -> ReleaseTensor:
    """A tensor that the release stores in another shape: viewed as `axes` and transposed to `order` in ours."""
    inverse = tuple(int(place) for place in np.argsort(order))
    ours = tuple(axes[place] for place in order)
    return ReleaseTensor(
        name,
        shape,
        path,
        lambda array: np.ascontiguousarray(array.reshape(axes).transpose(order)),
        lambda array: np.ascontiguousarray(array.reshape(ours).transpose(inverse)).reshape(shape),
    )


def norm(name: str, path: Path, size: int) -> list[ReleaseTensor]:
    """Weight and bias of a LayerNorm."""
    return [plain(f"{name}.weight", (*path, "scale"), size), plain(f"{name}.bias", (*path, "bias"), size)]


def linear(
    name: str, path: Path, out_size: int, in_size: int, *, pointwise: bool = False, bias: bool = True
) -> list[ReleaseTensor]:
    """Weight and, if it has one, bias of a linear layer, which the release may store as a pointwise convolution."""
    return spread(name, path, in_size, (out_size,), (0,), pointwise=pointwise)[: 2 if bias else 1]


def two_layers(name: str, path: Path, sizes: tuple[int, int, int]) -> list[ReleaseTensor]:
    """Two linear layers with one function between them."""
    first, hidden, last = sizes
    return [
        *linear(f"{name}.0", (*path, "fc_0"), hidden, first),
        *linear(f"{name}.2", (*path, "fc_2"), last, hidden),
    ]


def spread(
    name: str, path: Path, in_size: int, axes: tuple[int, ...], order: tuple[int, ...], *, pointwise: bool = False
) -> list[ReleaseTensor]:
    """A linear layer whose output is a grid, in another order of axes in ours."""
    out_size = int(np.prod(axes))
    shape = (out_size, in_size, 1, 1) if pointwise else (out_size, in_size)
    return [
        grid(f"{name}.weight", (*path, "kernel"), shape, (*axes, in_size), (len(axes), *order)),
        grid(f"{name}.bias", (*path, "bias"), (out_size,), axes, order),
    ]

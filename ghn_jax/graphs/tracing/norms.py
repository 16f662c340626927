"""Parameters that meet data elementwise: normalisation scales and biases, layer biases, position tables."""

import dataclasses
import math
from typing import Any

from ghn_jax.graphs.param_spec import Role
from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import TraceBuilder, letters_of
from ghn_jax.graphs.tracing.combine import merge_data, shape_of
from ghn_jax.graphs.tracing.values import Data, Statistics, Weight
from ghn_jax.graphs.vocabulary import Primitive

_LAYER_SCALE = "multiplies data that no statistics normalise (layer scale)"
_NORMS = {Statistics.BATCH: Primitive.BN, Statistics.EXAMPLE: Primitive.LN}


def normalise(builder: TraceBuilder, eqn: Any, data: Data, scale: Weight) -> Data:
    """Data (or a deviation on its way to data) times a parameter."""
    axes = _result_axes(eqn, data, scale)
    if data.normalised is not None and _is_vector(data, scale):
        scale = scale.through("mul") if scale.normalises is not None else scale
        return _norm_node(builder, dataclasses.replace(data, axes=axes), data.normalised, scale)
    if scale.normalises is not None:
        return _norm_node(builder, dataclasses.replace(data, axes=axes), scale.normalises, scale)
    if data.inverse_root and data.scale is None:
        return dataclasses.replace(
            data, scale=scale
        )  # keeps the axes of the deviation, which are fewer than the data's
    if data.centred and data.scale is None and _is_vector(data, scale):
        builder.keep(scale, _LAYER_SCALE)  # unless a division by the deviation follows
        return dataclasses.replace(data, axes=axes, scale=scale)
    reason = "multiplies attention scores" if data.scores else _LAYER_SCALE
    builder.keep(scale, reason)
    return merge_data(builder, [data], axes)


def scale_statistics(builder: TraceBuilder, data: Data, factor: Data) -> Data:
    """Data times the reciprocal deviation `factor`, which may already carry the scale."""
    kind = factor.statistics or Statistics.EXAMPLE
    factor = builder.resolve_means(factor) if not data.squeezed else factor
    scale = factor.scale or (data.scale if data.centred else None)
    data = dataclasses.replace(
        data, axes=ax.merge(data.axes, factor.axes), nodes=data.nodes | factor.nodes, statistics=None,
        root=False, inverse_root=False, kernel_open=False, norm_open=None, summed=False,
        scale=None, centred=False,
    )  # fmt: skip
    if scale is not None:
        return _norm_node(builder, data, kind, scale)
    return dataclasses.replace(data, normalised=kind)


def shift_norm(builder: TraceBuilder, data: Data, bias: Weight) -> Data:
    """Adds the bias of the normalisation that `data` comes from."""
    if data.norm_open is not None:
        builder.use(bias, _vector_letters(bias), Role.NORM_BIAS, data.norm_open)
    return dataclasses.replace(data, norm_open=None)


def add_parameter(builder: TraceBuilder, eqn: Any, data: Data, added: Weight) -> Data:
    """Data plus a parameter: bias of a normalisation or layer, position table, or nothing that the vocabulary knows."""
    axes = _result_axes(eqn, data, added)
    data = dataclasses.replace(data, axes=axes)
    if _is_vector(data, added):
        if data.norm_open is not None:
            return shift_norm(builder, data, added)
        if data.normalised is not None:
            return shift_norm(builder, _norm_node(builder, data, data.normalised, None, _size(added)), added)
        if data.kernel_open:
            node = builder.node(Primitive.BIAS, data.nodes, (_size(added), 1, 1, 1), squeezed=data.squeezed)
            builder.use(added, _vector_letters(added), Role.BIAS, node)
            return Data(frozenset({node}), axes, squeezed=data.squeezed, scores=data.scores)
    elif not data.scores and _is_table(data, added):
        return _add_table(builder, data, added)
    reason = (
        "added to attention scores" if data.scores else "added to data that no layer of the vocabulary just produced"
    )
    builder.keep(added, reason)
    return merge_data(builder, [data], axes)


def _norm_node(builder: TraceBuilder, data: Data, kind: Statistics, scale: Weight | None, size: int = 0) -> Data:
    node = builder.node(_NORMS[kind], data.nodes, (size or _size(scale), 1, 1, 1), squeezed=data.squeezed)
    if scale is not None:
        builder.use(scale, _vector_letters(scale), Role.SCALE, node)
    return Data(frozenset({node}), data.axes, squeezed=data.squeezed, norm_open=node)


def _add_table(builder: TraceBuilder, data: Data, table: Weight) -> Data:
    """A position table enters by a sum."""
    letters, shape = _table_letters(data, table)
    node = builder.node(Primitive.POS_ENC, (), shape)
    builder.use(table, letters, Role.POSITION, node)
    row = builder.node(Primitive.SUM, {*data.nodes, node})
    return Data(frozenset({row}), data.axes)


def _table_letters(data: Data, table: Weight) -> tuple[str | None, tuple[int, int, int, int]]:
    """Letters of a table's axes (places H, W; features I; others O), the node's shape (docs/method.md, section 4)."""
    pairs = []
    spatial = iter("HW")
    for axis, along in zip(table.axes, data.axes, strict=True):
        if ax.labels_of([axis]):
            feature = ax.labels_of([along]) <= {ax.CHANNEL}
            pairs.append((axis, "I" if feature else next(spatial, "H")))
    letters = letters_of(table, pairs)
    if letters is None or table.leaf is None:
        return None, (1, 1, 1, 1)
    sizes = {"O": 1, "I": 1, "H": 1, "W": 1}
    rest = table.leaf.shape[len(table.index) :]
    for letter, size in zip(letters, rest, strict=True):
        sizes[letter] *= size
    if "W" in letters:
        return letters, (sizes["O"], sizes["I"], sizes["H"], sizes["W"])
    side = math.isqrt(sizes["H"])
    return letters, (sizes["O"], sizes["I"], side, side)


def _result_axes(eqn: Any, data: Data, weight: Weight) -> ax.Axes:
    """Axes of data after an elementwise operation with a parameter, which may broadcast it."""
    shape = shape_of(eqn.outvars[0])
    if len(data.axes) != len(shape):
        return tuple(((ax.UNKNOWN, n),) for n in shape)
    if len(weight.axes) != len(shape):
        return data.axes
    channels = tuple(((ax.CHANNEL, n),) if axis else () for axis, n in zip(weight.axes, shape, strict=True))
    return tuple(old or new for old, new in zip(data.axes, channels, strict=True))


def _covered(data: Data, weight: Weight) -> set[ax.Label]:
    """Labels of the data's axes along which a parameter varies."""
    if len(data.axes) != len(weight.axes):
        return set()
    return ax.labels_of([d for d, w in zip(data.axes, weight.axes, strict=True) if ax.labels_of([w])])


def _is_vector(data: Data, weight: Weight) -> bool:
    """Whether a parameter varies along features only; scalars are no vectors."""
    if len(weight.axes) == 0 or (weight.leaf is not None and len(weight.leaf.shape) == len(weight.index)):
        return False
    covered = _covered(data, weight)
    varied = [w for w in weight.axes if ax.labels_of([w])]
    return covered <= {ax.CHANNEL} or (covered == {ax.UNKNOWN} and len(varied) == 1)


def _is_table(data: Data, weight: Weight) -> bool:
    """Whether a parameter varies along places and features."""
    covered = _covered(data, weight)
    return ax.BATCH not in covered and bool(covered & {ax.SPACE, ax.UNKNOWN}) and ax.CHANNEL in covered


def _vector_letters(weight: Weight) -> str | None:
    return letters_of(weight, [(axis, "O") for axis in weight.axes])


def _size(weight: Weight | None) -> int:
    if weight is None or weight.leaf is None:
        return math.prod(n for axis in (weight.axes if weight else ()) for _, n in axis)
    return math.prod(weight.leaf.shape[len(weight.index) :])

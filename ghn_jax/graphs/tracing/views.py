"""Operations that only rearrange a value: contracted, but the axes must be followed."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp

from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import TraceBuilder
from ghn_jax.graphs.tracing.combine import contract, shape_of
from ghn_jax.graphs.tracing.values import Constant, Data, Value, Weight
from ghn_jax.graphs.vocabulary import Primitive

Rule = Callable[[TraceBuilder, Any, Sequence[Value]], Value | list[Value]]
Tracked = TypeVar("Tracked", Data, Weight)


def _same(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    return list(values[: len(eqn.outvars)])


def _negated(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """Negation, the real part: nothing to the graph, but a parameter is no longer its leaf."""
    value = values[0]
    return value if isinstance(value, Constant) else value.through(eqn.primitive.name)


def _cast(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A cast between floating types keeps what a value is; one to integers rounds it."""
    value, new = values[0], eqn.params["new_dtype"]
    if isinstance(value, Weight) and not jnp.issubdtype(new, jnp.inexact):
        return value.through(f"a cast to {jnp.dtype(new).name}")
    return value


def _viewed(change: Callable[[ax.Axes, Any], ax.Axes]) -> Rule:
    """A rule that changes the axes of its first operand and nothing else."""

    def rule(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
        value = values[0]
        if isinstance(value, Constant):
            return contract(builder, eqn, values)
        return dataclasses.replace(value, axes=change(value.axes, eqn))

    return rule


def _reshape(axes: ax.Axes, eqn: Any) -> ax.Axes:
    return ax.reshape(axes, shape_of(eqn.invars[0]), eqn.params["new_sizes"])


def _broadcast(axes: ax.Axes, eqn: Any) -> ax.Axes:
    params = eqn.params
    return ax.broadcast_in_dim(axes, shape_of(eqn.invars[0]), params["shape"], params["broadcast_dimensions"])


def _resized(axes: ax.Axes, eqn: Any) -> ax.Axes:
    return tuple(ax.resize(axis, n) for axis, n in zip(axes, shape_of(eqn.outvars[0]), strict=True))


def _slice(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A slice of data keeps its axes; of a parameter it is either one position of an axis or a part."""
    return _sliced(values[0], shape_of(eqn.invars[0]), shape_of(eqn.outvars[0]), eqn.params["start_indices"])


def _dynamic_slice(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    starts = [v.value if isinstance(v, Constant) else None for v in values[1:]]
    if isinstance(values[0], Constant):
        return contract(builder, eqn, values)
    return _sliced(values[0], shape_of(eqn.invars[0]), shape_of(eqn.outvars[0]), starts)


def _split(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    axis = eqn.params["axis"]
    return _parts(values[0], shape_of(eqn.invars[0]), axis, [shape_of(variable)[axis] for variable in eqn.outvars])


def _unstack(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """A slice for each position of an axis, which is gone then (JAX 0.12)."""
    axis = eqn.params["axis"]
    parts: Any = _parts(values[0], shape_of(eqn.invars[0]), axis, [1] * len(eqn.outvars))
    return [dataclasses.replace(part, axes=ax.drop(part.axes, (axis,))) for part in parts]


def _parts(value: Value, shape: Sequence[int], axis: int, sizes: Sequence[int]) -> list[Value]:
    """Slices of these sizes along an axis, one behind the other."""
    outputs: list[Value] = []
    start = 0
    for size in sizes:
        starts = [start if d == axis else 0 for d in range(len(shape))]
        outputs.append(_sliced(value, shape, [size if d == axis else n for d, n in enumerate(shape)], starts))
        start += size
    return outputs


def _sliced(value: Value, old: Sequence[int], new: Sequence[int], starts: Sequence[Any]) -> Value:
    if isinstance(value, Constant):
        return value
    axes = tuple(ax.resize(axis, n) for axis, n in zip(value.axes, new, strict=True))
    if isinstance(value, Data):
        return dataclasses.replace(value, axes=axes)
    for dimension, (before, after, start) in enumerate(zip(old, new, starts, strict=True)):
        if before == after:
            continue
        pieces = value.axes[dimension]
        if after == 1 and start is not None and len(pieces) == 1 and _is_leading(value, pieces[0]):
            value = dataclasses.replace(value, index=(*value.index, (_axis_of(pieces[0]), int(start))))
            axes = (*axes[:dimension], (), *axes[dimension + 1 :])
        else:
            value = dataclasses.replace(value, part=True)
    return dataclasses.replace(value, axes=axes)


def _axis_of(piece: tuple[ax.Label, int]) -> int:
    return piece[0] if isinstance(piece[0], int) else -1


def _is_leading(weight: Weight, piece: tuple[ax.Label, int]) -> bool:
    """Whether a piece is the whole of the leaf's first axis that is not indexed yet."""
    return weight.leaf is not None and piece == (len(weight.index), weight.leaf.shape[len(weight.index)])


def index_leading(weight: Weight, step: int) -> Weight:
    """``weight[step]``."""
    pieces, rest = weight.axes[0], weight.axes[1:]
    if weight.leaf is not None and len(pieces) == 1 and isinstance(pieces[0][0], int):
        return dataclasses.replace(weight, axes=rest, index=(*weight.index, (pieces[0][0], step)))
    return Weight(None, rest, others=weight.leaves)


def _gather(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """Axes that a gather takes along whole; what is looked up in a parameter is a part of it."""
    value, indices = values[0], values[1]
    if isinstance(value, Weight) and isinstance(indices, Data):
        builder.keep(value, "looked up by data (an embedding table)")
    if isinstance(value, Constant) or not isinstance(indices, Constant):
        return contract(builder, eqn, values)
    numbers = eqn.params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    taken = iter([axis for i, axis in enumerate(value.axes) if i not in gone])
    collapsed = [value.axes[i] for i in numbers.collapsed_slice_dims]
    shape = shape_of(eqn.outvars[0])
    free = iter(collapsed if len(collapsed) == len(shape) - len(numbers.offset_dims) else [])
    axes = tuple(
        ax.resize(next(taken) if d in numbers.offset_dims else next(free, ((ax.UNKNOWN, n),)), n)
        for d, n in enumerate(shape)
    )
    return dataclasses.replace(value, axes=axes, **({"part": True} if isinstance(value, Weight) else {}))


def _concatenate(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A node if it joins the outputs of several nodes; parameters among data (class tokens) are kept."""
    data = [v for v in values if isinstance(v, Data)]
    if not data:
        return contract(builder, eqn, values)
    for value in values:
        if isinstance(value, Weight):
            builder.keep(value, "token or channels concatenated with data")
    first = data[0]
    shape = shape_of(eqn.outvars[0])
    axes = tuple(ax.resize(axis or ((ax.UNKNOWN, n),), n) for axis, n in zip(first.axes, shape, strict=True))
    nodes = frozenset().union(*(v.nodes for v in data))
    squeezed = all(v.squeezed for v in data)
    if len(nodes) == 1:
        return dataclasses.replace(first, axes=axes, squeezed=squeezed, norm_open=None)
    row = builder.node(Primitive.CONCAT, nodes, squeezed=squeezed)
    return Data(frozenset({row}), axes, squeezed=squeezed)


def _pad(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    value, filling = values
    if isinstance(value, Constant) or not isinstance(filling, Constant):
        return contract(builder, eqn, values)
    if isinstance(value, Weight):
        value = dataclasses.replace(value if filling.value == 0 else value.through("pad"), part=True)
    return dataclasses.replace(value, axes=_resized(value.axes, eqn))


def size_of(axis: ax.Axis) -> int:
    """Number of elements along the pieces of an axis."""
    return math.prod(n for _, n in axis)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("copy", "copy_p", "reduce_precision", "optimization_barrier", "name", "rev", "sharding_constraint",
         "stop_gradient", "device_put", "mesh_cast", "reshard", "pvary"),
        _same,
    ),
    **dict.fromkeys(("neg", "real"), _negated),
    "convert_element_type": _cast,
    "reshape": _viewed(_reshape),
    "transpose": _viewed(lambda axes, eqn: tuple(axes[i] for i in eqn.params["permutation"])),
    "squeeze": _viewed(lambda axes, eqn: ax.drop(axes, eqn.params["dimensions"])),
    "broadcast_in_dim": _viewed(_broadcast),
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "unstack": _unstack,
    "gather": _gather,
    "concatenate": _concatenate,
    "pad": _pad,
}  # fmt: skip

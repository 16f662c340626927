"""Convolutions, linear layers and attention products."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.graphs.param_spec import Role
from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import NodeShape, TraceBuilder, letters_of
from ghn_jax.graphs.tracing.combine import contract, merge_data, shape_of
from ghn_jax.graphs.tracing.values import Constant, Data, Value, Weight
from ghn_jax.graphs.tracing.views import Rule, size_of
from ghn_jax.graphs.vocabulary import Primitive


class _Layer(NamedTuple):
    """A kernel's node, the letters of its leaf's axes (None: they have none) and whether its input has spatial axes."""

    primitive: Primitive
    shape: NodeShape
    letters: str | None
    sees_space: bool


def _convolution(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    data, kernel = values
    numbers = eqn.params["dimension_numbers"]
    axes: list[ax.Axis] = [()] * len(shape_of(eqn.outvars[0]))
    if not isinstance(data, Data):
        return contract(builder, eqn, values)
    shape = shape_of(eqn.outvars[0])
    axes[numbers.out_spec[0]] = data.axes[numbers.lhs_spec[0]]
    axes[numbers.out_spec[1]] = ((ax.CHANNEL, shape[numbers.out_spec[1]]),)
    for dimension in numbers.out_spec[2:]:
        axes[dimension] = ((ax.SPACE, shape[dimension]),)
    if isinstance(kernel, Data):
        return dataclasses.replace(merge_data(builder, [data, kernel], tuple(axes)), scores=True)
    if isinstance(kernel, Constant):
        return merge_data(builder, [data], tuple(axes))
    sizes = shape_of(eqn.invars[1])
    # Spatial axes may be listed in any order; height is the one that comes first in the images.
    order = [2 + place for place in np.argsort(numbers.lhs_spec[2:])]
    dimensions = [*numbers.rhs_spec[:2], *(numbers.rhs_spec[place] for place in order)]
    out, into, *window = (sizes[d] for d in dimensions)
    if len(window) > 2 or eqn.params["batch_group_count"] != 1:
        builder.keep(kernel, f"a convolution over {len(window)} axes is not in the vocabulary")
        return merge_data(builder, [data], tuple(axes))
    letters = letters_of(kernel, zip((kernel.axes[d] for d in dimensions), "OIHW", strict=False))
    primitive = Primitive.CONV
    if eqn.params["feature_group_count"] > 1:
        dilated = all(d > 1 for d in eqn.params["rhs_dilation"])
        primitive = Primitive.DIL_CONV if dilated else Primitive.SEP_CONV
    height, width = [*window, 1, 1][:2]
    return _kernel(
        builder, data, kernel, _Layer(primitive, (out, into, height, width), letters, sees_space=True), tuple(axes)
    )


def _dot(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = values
    left_rank, right_rank = len(shape_of(eqn.invars[0])), len(shape_of(eqn.invars[1]))
    left_free = [d for d in range(left_rank) if d not in (*left_sum, *left_batch)]
    right_free = [d for d in range(right_rank) if d not in (*right_sum, *right_batch)]
    if isinstance(left, Data) and isinstance(right, Data):
        axes = _pick(left, left_batch) + _pick(left, left_free) + _pick(right, right_free)
        return _product(builder, left, right, axes)
    ours, theirs = _Dims(left_batch, left_sum, left_free), _Dims(right_batch, right_sum, right_free)
    if isinstance(left, Data):
        return _linear(builder, eqn, (left, ours), (right, theirs), flip=False)
    if isinstance(right, Data):
        return _linear(builder, eqn, (right, theirs), (left, ours), flip=True)
    return contract(builder, eqn, values)


class _Dims(NamedTuple):
    """Dimensions of one operand of a product."""

    batch: Sequence[int]
    summed: Sequence[int]
    free: Sequence[int]


def _linear(
    builder: TraceBuilder, eqn: Any, operands: tuple[Data, _Dims], kernel: tuple[Value, _Dims], *, flip: bool
) -> Value:
    """Data times a parameter (a layer) or a constant (contracted); with `flip` the data are the second operand."""
    (data, along), (weight, dims) = operands, kernel
    size = shape_of(eqn.outvars[0])
    width = len(dims.free)
    start = len(along.batch) if flip else len(size) - width
    new: ax.Axes = tuple(((ax.CHANNEL, n),) for n in size[start : start + width])
    if isinstance(weight, Constant) and width == len(along.summed):
        new = tuple(ax.resize(data.axes[d], n) for d, n in zip(along.summed, size[start:], strict=False))
    free = _pick(data, along.free)
    axes = _pick(data, along.batch) + (new + free if flip else free + new)
    if not isinstance(weight, Weight):
        over_space = ax.all_labels(_pick(data, along.summed)) == {ax.SPACE}
        means = weight.window_means if isinstance(weight, Constant) and over_space else 0
        return _averaged(builder, data, axes, means)
    if not along.summed:
        builder.keep(weight, "an outer product with data is no layer of the vocabulary")
        return merge_data(builder, [data], axes)
    sizes = shape_of(eqn.invars[0 if flip else 1])
    groups = math.prod(sizes[d] for d in dims.batch)
    out = groups * math.prod(sizes[d] for d in dims.free)
    into = math.prod(sizes[d] for d in dims.summed)
    letters = {**dict.fromkeys((*dims.batch, *dims.free), "O"), **dict.fromkeys(dims.summed, "I")}
    layer = _Layer(
        Primitive.SEP_CONV if groups > 1 else Primitive.CONV,
        (out, into, 1, 1),
        letters_of(weight, [(weight.axes[d], letter) for d, letter in letters.items()]),
        sees_space=any(axis != ((ax.BATCH, size_of(axis)),) for axis in _pick(data, [*along.batch, *along.free])),
    )
    return _kernel(builder, data, weight, layer, axes)


def _averaged(builder: TraceBuilder, data: Data, axes: ax.Axes, means: int) -> Data:
    """Data times a constant matrix.

    Window means along both spatial axes are an adaptive pooling, a mean over space to the reference whatever its size.

    """
    result = merge_data(builder, [data], axes)
    if not means:
        return result
    if data.averaged + means < 2:
        return dataclasses.replace(result, averaged=1)
    return Data(frozenset({builder.node(Primitive.GLOB_AVG, data.nodes)}), axes)


def _kernel(builder: TraceBuilder, data: Data, kernel: Weight, layer: _Layer, axes: ax.Axes) -> Data:
    """The node of a convolution or linear layer. Slices of one leaf that meet the same data are one layer."""
    if kernel.leaf is None:
        builder.keep(kernel, "several leaves are joined into one kernel")
        return merge_data(builder, [data], axes)
    for row in data.nodes:
        if builder.nodes[row].primitive is Primitive.GLOB_AVG:
            builder.nodes[row].drops_axes = not layer.sees_space and builder.nodes[row].drops_axes is not False
    key = (kernel.leaf, tuple(position for _, position in kernel.index), data.nodes)
    node = builder.shared.get(key) if kernel.part else None
    if node is None:
        shape = _whole_shape(kernel, layer) if kernel.part else layer.shape
        node = builder.shared[key] = builder.node(layer.primitive, data.nodes, shape, squeezed=data.squeezed)
    builder.use(kernel, layer.letters, Role.KERNEL, node)
    return Data(frozenset({node}), axes, squeezed=data.squeezed, kernel_open=True)


def _whole_shape(kernel: Weight, layer: _Layer) -> NodeShape:
    """Shape of the layer whose kernel is the whole leaf."""
    if layer.letters is None or kernel.leaf is None:
        return layer.shape
    sizes = {"O": 1, "I": 1, "H": 1, "W": 1}
    for letter, size in zip(layer.letters, kernel.leaf.shape[len(kernel.index) :], strict=True):
        sizes[letter] *= size
    return sizes["O"], sizes["I"], sizes["H"], sizes["W"]


def _product(builder: TraceBuilder, left: Data, right: Data, axes: ax.Axes) -> Data:
    """Data times data; the second product of an attention closes it and is its node."""
    result = merge_data(builder, [left, right], axes)
    if not (left.scores or right.scores):
        return dataclasses.replace(result, scores=True, statistics=None)
    node = builder.node(Primitive.MSA, result.nodes, squeezed=result.squeezed)
    return Data(frozenset({node}), axes, squeezed=result.squeezed)


def _pick(value: Data, dimensions: Sequence[int]) -> ax.Axes:
    return tuple(value.axes[d] for d in dimensions)


RULES: dict[str, Rule] = {"conv_general_dilated": _convolution, "dot_general": _dot}

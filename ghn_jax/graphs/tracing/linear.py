"""Convolutions, linear layers and attention products."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ghn_jax.graphs.param_spec import Role
from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import GraphBuilder, NodeShape, letters_of
from ghn_jax.graphs.tracing.combine import contract, merge_data, shape_of
from ghn_jax.graphs.tracing.values import Constant, Data, Value, Weight
from ghn_jax.graphs.tracing.views import Rule, size_of
from ghn_jax.graphs.vocabulary import Primitive


def _convolution(builder: GraphBuilder, eqn: Any, values: Sequence[Value]) -> Value:
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
    window = [*window, 1, 1][:2]
    return _kernel(
        builder, data, kernel, letters, primitive, (out, into, window[0], window[1]), tuple(axes), drops=False
    )


def _dot(builder: GraphBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = values
    left_rank, right_rank = len(shape_of(eqn.invars[0])), len(shape_of(eqn.invars[1]))
    left_free = [d for d in range(left_rank) if d not in (*left_sum, *left_batch)]
    right_free = [d for d in range(right_rank) if d not in (*right_sum, *right_batch)]
    if isinstance(left, Data) and isinstance(right, Data):
        axes = _pick(left, left_batch) + _pick(left, left_free) + _pick(right, right_free)
        return _product(builder, left, right, axes)
    if isinstance(left, Data):
        return _linear(
            builder, eqn, left, right, (left_batch, left_sum, left_free), (right_batch, right_sum, right_free)
        )
    if isinstance(right, Data):
        return _linear(
            builder,
            eqn,
            right,
            left,
            (right_batch, right_sum, right_free),
            (left_batch, left_sum, left_free),
            flip=True,
        )
    return contract(builder, eqn, values)


_Dims = tuple[Sequence[int], Sequence[int], Sequence[int]]


def _linear(
    builder: GraphBuilder, eqn: Any, data: Data, kernel: Value, data_dims: _Dims, dims: _Dims, *, flip: bool = False
) -> Value:
    """Data times a parameter (a layer) or a constant (contracted); `dims` are batch, summed and free dimensions."""
    batch, summed, free = data_dims
    size = shape_of(eqn.outvars[0])
    width = len(dims[2])
    start = len(batch) if flip else len(size) - width
    if isinstance(kernel, Constant):
        unknown = tuple(data.axes[d] for d in summed) if width == len(summed) else ((),) * width
        new = tuple(ax.resize(axis or ((ax.UNKNOWN, n),), n) for axis, n in zip(unknown, size[start:], strict=False))
    else:
        new = tuple(((ax.CHANNEL, n),) for n in size[start : start + width])
    axes = _pick(data, batch) + (new + _pick(data, free) if flip else _pick(data, free) + new)
    if not isinstance(kernel, Weight):
        means = isinstance(kernel, Constant) and kernel.window_means
        return _averaged(builder, data, axes, means and ax.all_labels(_pick(data, summed)) == {ax.SPACE})
    if not summed:
        builder.keep(kernel, "an outer product with data is no layer of the vocabulary")
        return merge_data(builder, [data], axes)
    weight_shape = shape_of(eqn.invars[0 if flip else 1])
    groups = math.prod(weight_shape[d] for d in dims[0])
    out = groups * math.prod(weight_shape[d] for d in dims[2])
    into = math.prod(weight_shape[d] for d in dims[1])
    pairs = [(kernel.axes[d], "O") for d in (*dims[0], *dims[2])] + [(kernel.axes[d], "I") for d in dims[1]]
    primitive = Primitive.SEP_CONV if groups > 1 else Primitive.CONV
    drops = not any(axis != ((ax.BATCH, size_of(axis)),) for axis in _pick(data, [*batch, *free]))
    return _kernel(builder, data, kernel, letters_of(kernel, pairs), primitive, (out, into, 1, 1), axes, drops=drops)


def _averaged(builder: GraphBuilder, data: Data, axes: ax.Axes, means: bool) -> Data:
    """Data times a constant matrix. Window means along both spatial axes are an adaptive pooling, which the reference
    counts as a mean over space whatever its output size.
    """
    result = merge_data(builder, [data], axes)
    if not means:
        return result
    if data.averaged == 0:
        return dataclasses.replace(result, averaged=1)
    return Data(frozenset({builder.node(Primitive.GLOB_AVG, data.nodes)}), axes)


def _kernel(
    builder: GraphBuilder,
    data: Data,
    kernel: Weight,
    letters: str | None,
    primitive: Primitive,
    shape: NodeShape,
    axes: ax.Axes,
    *,
    drops: bool,
) -> Data:
    """The node of a convolution or linear layer. Slices of one leaf that meet the same data are one layer."""
    if kernel.leaf is None:
        builder.keep(kernel, "several leaves are joined into one kernel")
        return merge_data(builder, [data], axes)
    for row in data.nodes:
        if builder.nodes[row].primitive is Primitive.GLOB_AVG:
            builder.nodes[row].drops_axes = drops and builder.nodes[row].drops_axes is not False
    key = (kernel.leaf, tuple(position for _, position in kernel.index), data.nodes)
    node = builder.shared.get(key) if kernel.part else None
    if node is None:
        if kernel.part:
            shape = _whole_shape(kernel, letters, shape)
        node = builder.shared[key] = builder.node(primitive, data.nodes, shape, squeezed=data.squeezed)
        builder.use(kernel, letters, Role.KERNEL, node)
    return Data(frozenset({node}), axes, squeezed=data.squeezed, kernel_open=True)


def _whole_shape(kernel: Weight, letters: str | None, shape: NodeShape) -> NodeShape:
    """Shape of the layer whose kernel is the whole leaf."""
    if letters is None or kernel.leaf is None:
        return shape
    sizes = {"O": 1, "I": 1, "H": 1, "W": 1}
    for letter, size in zip(letters, kernel.leaf.shape[len(kernel.index) :], strict=True):
        sizes[letter] *= size
    return sizes["O"], sizes["I"], sizes["H"], sizes["W"]


def _product(builder: GraphBuilder, left: Data, right: Data, axes: ax.Axes) -> Data:
    """Data times data; the second product of an attention closes it and is its node."""
    result = merge_data(builder, [left, right], axes)
    if not (left.scores or right.scores):
        return dataclasses.replace(result, scores=True, statistics=None)
    node = builder.node(Primitive.MSA, result.nodes, squeezed=result.squeezed)
    return Data(frozenset({node}), axes, squeezed=result.squeezed)


def _pick(value: Data, dimensions: Sequence[int]) -> ax.Axes:
    return tuple(value.axes[d] for d in dimensions)


RULES: dict[str, Rule] = {"conv_general_dilated": _convolution, "dot_general": _dot}

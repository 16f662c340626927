"""What becomes of values under an operation that no rule knows: everything is contracted."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.tracing.axes import UNKNOWN, Axes, labels_of, merge
from ghn_jax.graphs.tracing.builder import TraceBuilder, through_function
from ghn_jax.graphs.tracing.forms import form_after, is_identity
from ghn_jax.graphs.tracing.values import Constant, Data, Form, Value, Weight


def shape_of(variable: Any) -> tuple[int, ...]:
    """Shape of a variable or literal of a jaxpr."""
    return tuple(getattr(variable.aval, "shape", ()))


def constant_of(array: Any) -> Constant:
    """What is known of an array that the model closes over."""
    size = getattr(array, "size", None)
    if size is None:
        return Constant(value=array)
    if size == 1 and array.ndim == 0 and not jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return Constant(value=array.item())
    return Constant(window_means=int(_is_window_means(array)))


def _is_window_means(array: Any) -> bool:
    """Whether a constant matrix averages: rows (or columns) of equal positive weights on one window, which sum to 1."""
    if array.ndim != 2 or not jnp.issubdtype(array.dtype, jnp.floating):
        return False
    for matrix in (np.asarray(array), np.asarray(array).T):
        inside = matrix > 0
        if (matrix >= 0).all() and inside.any(axis=1).all():
            means = inside / inside.sum(axis=1, keepdims=True)
            steps = np.diff(inside.astype(np.int8), axis=1, prepend=0, append=0)
            if np.allclose(matrix, means) and (np.abs(steps).sum(axis=1) == 2).all():
                return True
    return False


def contract(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """The value of every output of an operation without a rule of its own."""
    shape = shape_of(eqn.outvars[0])
    shapes = [shape_of(v) for v in eqn.invars]
    data = [v for v in values if isinstance(v, Data)]
    if data:
        for value in values:
            if isinstance(value, Weight):
                builder.keep(value, f"meets data in {eqn.primitive.name}, which no layer of the vocabulary does")
        for weight in (w for v in data for w in (v.scale, v.shift) if w is not None):
            builder.keep(weight.through(eqn.primitive.name), through_function(eqn.primitive.name))
        return merge_data(builder, data, _fitting_axes(values, shapes, shape))
    if any(isinstance(v, Weight) for v in values):
        return merge_weights(eqn, values, _fitting_axes(values, shapes, shape))
    return Constant()


def merge_data(builder: TraceBuilder, data: Sequence[Data], axes: Axes) -> Data:
    """Data computed from other data by contracted operations.

    Means over space that meet unsqueezed data directly are statistics, so what they average takes their place.
    """
    squeezed = all(v.squeezed for v in data)
    if not squeezed:
        data = [builder.resolve_means(v) if v.squeezed else v for v in data]
    statistics = {v.statistics for v in data}
    return Data(
        nodes=frozenset().union(*(v.nodes for v in data)),
        axes=axes,
        squeezed=squeezed,
        statistics=statistics.pop() if len(statistics) == 1 else None,
        scores=any(v.scores for v in data),
    )


def merge_weights(eqn: Any, values: Sequence[Value], axes: Axes) -> Weight:
    """A value computed from parameters and constants; it remembers the leaf that outranks all others.

    The leaf that spans most axes is the kernel (or bias), smaller ones modify it, like the gain of a standardised
    kernel. What the value is to that leaf is its form.
    """
    weights = [v for v in values if isinstance(v, Weight)]
    name = eqn.primitive.name
    leaves = frozenset().union(*(w.leaves for w in weights))
    ranked = sorted((w for w in weights if w.leaf), key=_rank)
    main = ranked[0] if ranked else None
    form = form_after(eqn, values)
    rivals = [w for w in ranked if main is not None and w.leaf != main.leaf and _rank(w) == _rank(main)]
    if main is None or rivals or len(ranked) < len(weights):
        return Weight(None, axes, others=leaves, form=Form.OTHER, function=name)
    main = dataclasses.replace(
        main,
        axes=axes,
        others=leaves - {main.leaf},
        part=main.part or any(w.leaf == main.leaf and w.index != main.index for w in ranked),
    )
    rest = ranked[1:]
    adds = name == "add" or (name == "sub" and values[0] is ranked[0])
    if adds and rest and all(w.normalises is not None for w in rest):
        # the bias of a fused normalisation; its scale is another layer's leaf, which this changes nothing about
        return dataclasses.replace(main, recentred=True, others=ranked[0].others)
    if is_identity(eqn, values):
        return main
    if form in (Form.LEAF, Form.STANDARDISED):
        return dataclasses.replace(main, form=form, function=None)
    # a running mean times a scale over its deviation is on its way to join a bias
    normalises = main.normalises if name == "mul" and len(weights) == 1 else None
    return dataclasses.replace(main, form=form, function=main.function or name, normalises=normalises)


def _rank(weight: Weight) -> tuple[int, bool, bool]:
    """Order of importance among the leaves of one value, the kernel first; a gain is less than what it scales."""
    return -len(labels_of(weight.axes)), weight.normalises is not None, weight.form is Form.LEAF


def _fitting_axes(values: Sequence[Value], shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Axes:
    """Axes of an elementwise result; unknown ones where the result has another shape than every operand."""
    axes: Axes | None = None
    for value, size in zip(values, shapes, strict=True):
        if not isinstance(value, Constant) and size == shape:
            axes = value.axes if axes is None else merge(axes, value.axes)
    return axes if axes is not None else tuple(((UNKNOWN, n),) for n in shape)

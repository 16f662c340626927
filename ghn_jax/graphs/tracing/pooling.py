"""Reductions and pooling windows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import TraceBuilder
from ghn_jax.graphs.tracing.combine import contract, merge_data, merge_weights, shape_of
from ghn_jax.graphs.tracing.values import Data, Statistics, Value, Weight
from ghn_jax.graphs.tracing.views import Rule
from ghn_jax.graphs.vocabulary import Primitive


def _reduce(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A reduction is a statistic of what it reduces; a sum over all of space may become a mean."""
    value, dimensions = values[0], eqn.params["axes"]
    if isinstance(value, Weight):
        return merge_weights(eqn, values, ax.drop(value.axes, dimensions))
    if not isinstance(value, Data):
        return contract(builder, eqn, values)
    rest = ax.drop(value.axes, dimensions)
    reduced = [value.axes[d] for d in dimensions]
    over = ax.all_labels(reduced)
    result = merge_data(builder, [value], rest)
    spatial = over == {ax.SPACE} and ax.SPACE not in ax.labels_of(rest) and not value.squeezed
    return dataclasses.replace(
        result,
        statistics=Statistics.BATCH if ax.BATCH in over else Statistics.EXAMPLE,
        summed=spatial and eqn.primitive.name == "reduce_sum",
    )


def _psum(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """Sums over mapped axes: `vmap` turns their names into dimensions; names of a mesh are left alone."""
    dimensions = [axis for axis in eqn.params["axes"] if not isinstance(axis, str)]
    outputs: list[Value] = []
    for value in values:
        if isinstance(value, Data) and dimensions:
            result = merge_data(builder, [value], ax.drop(value.axes, dimensions))
            outputs.append(dataclasses.replace(result, statistics=Statistics.BATCH))
        else:
            outputs.append(value.through("psum") if isinstance(value, Weight) and dimensions else value)
    return outputs


def _window(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """Pooling over space; a window that covers all of it is a mean over space."""
    value = values[0]
    if not isinstance(value, Data):
        return contract(builder, eqn, values)
    shape, window = shape_of(eqn.invars[0]), eqn.params["window_dimensions"]
    out = shape_of(eqn.outvars[0])
    axes = tuple(ax.resize(axis, n) for axis, n in zip(value.axes, out, strict=True))
    spatial = [d for d, axis in enumerate(value.axes) if ax.all_labels([axis]) & {ax.SPACE, ax.UNKNOWN}]
    pooled = [d for d, n in enumerate(window) if n > 1]
    if not pooled or not set(pooled) <= set(spatial):
        return merge_data(builder, [value], axes)
    is_mean = eqn.primitive.name == "reduce_window_sum"
    if is_mean and all(window[d] == shape[d] and out[d] == 1 for d in spatial):
        node = builder.node(Primitive.GLOB_AVG, value.nodes, squeezed=True)
        builder.nodes[node].drops_axes = False
        return Data(frozenset({node}), axes, squeezed=True)
    sides = ([window[d] for d in spatial] + [1, 1])[:2]
    primitive = Primitive.AVG_POOL if is_mean else Primitive.MAX_POOL
    node = builder.node(primitive, value.nodes, (1, 1, sides[0], sides[1]), squeezed=value.squeezed)
    return Data(frozenset({node}), axes, squeezed=value.squeezed)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "reduce_and", "reduce_or"),
        _reduce,
    ),
    "psum": _psum,
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
}

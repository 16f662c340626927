"""Sums and products: biases, normalisations, residual sums, gates, layer scales."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ghn_jax.graphs.tracing import axes as ax
from ghn_jax.graphs.tracing.builder import TraceBuilder
from ghn_jax.graphs.tracing.combine import contract, merge_data, shape_of
from ghn_jax.graphs.tracing.forms import power_of
from ghn_jax.graphs.tracing.norms import add_parameter, normalise, scale_statistics, shift_norm
from ghn_jax.graphs.tracing.values import Constant, Data, Statistics, Value, Weight
from ghn_jax.graphs.tracing.views import Rule
from ghn_jax.graphs.vocabulary import Primitive

_FOLDED = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "lt": lambda a, b: a < b,
    "clamp": lambda low, a, high: max(low, min(a, high)),
    "select_n": lambda which, *cases: cases[int(which)],
}

_KEEP_ROOTS = frozenset(
    {
        "broadcast_in_dim",
        "reshape",
        "squeeze",
        "slice",
        "dynamic_slice",
        "gather",
        "split",
        "unstack",
        "reduce_precision",
        "optimization_barrier",
        "add",
        "max",
    }
)
"""Operations after which a running deviation is still one: layout, casts, an epsilon, a floor."""


def constant(eqn: Any, values: Sequence[Value]) -> Constant:
    """Result of an operation on constants: scalars are computed as far as indices need it, roots are noted."""
    name = eqn.primitive.name
    known = [v for v in values if isinstance(v, Constant)]
    if name in ("convert_element_type", "transpose", "copy"):
        return known[0]
    if name == "dot_general":
        return Constant(window_means=2 if all(v.window_means == 1 for v in known) else 0)
    if not shape_of(eqn.outvars[0]) or not known:
        folded = name in _FOLDED and all(v.value is not None for v in known)
        return Constant(value=_FOLDED[name](*(v.value for v in known)) if folded else None)
    power = power_of(eqn, values)
    if name == "rsqrt" or power == -0.5 or (known[-1].root and (name == "div" or power == -1)):
        return Constant(inverse_root=True)
    if name == "sqrt" or power == 0.5:
        return Constant(root=True)
    kept = known if name in _KEEP_ROOTS else []
    return Constant(inverse_root=any(v.inverse_root for v in kept), root=any(v.root for v in kept))


def _unary(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """Square roots of statistics and their reciprocals; everything else is contracted."""
    value, name = values[0], eqn.primitive.name
    result = contract(builder, eqn, values)
    if not isinstance(value, Data) or not isinstance(result, Data) or value.statistics is None:
        return result
    power = power_of(eqn, values)
    if name == "rsqrt" or power == -0.5 or (power == -1 and value.root):
        return dataclasses.replace(result, inverse_root=True)
    return dataclasses.replace(result, root=name == "sqrt" or power == 0.5)


def _multiply(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    first, second = values
    if isinstance(first, Data) and isinstance(second, Data):
        return _multiply_data(builder, first, second)
    data, other = (first, second) if isinstance(first, Data) else (second, first)
    if not isinstance(data, Data):
        return _multiply_weight(builder, eqn, values)
    if isinstance(other, Weight):
        return normalise(builder, eqn, data, other)
    if not isinstance(other, Constant):
        return contract(builder, eqn, values)
    return _scaled_by_constant(builder, eqn, data, other.inverse_root)


def _multiply_weight(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A parameter times a constant; with running statistics it is the scale of a normalisation."""
    running = any(isinstance(v, Constant) and v.inverse_root for v in values)
    return _over_running_deviation(builder, eqn, values) if running else contract(builder, eqn, values)


def _over_running_deviation(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    """A parameter over a running deviation: the scale of a normalisation, unless it is one already."""
    result = contract(builder, eqn, values)
    (weight,) = (v for v in values if isinstance(v, Weight))
    if weight.normalises is not None or not isinstance(result, Weight):
        return result
    return dataclasses.replace(weight, axes=result.axes, normalises=Statistics.BATCH)


def _scaled_by_constant(builder: TraceBuilder, eqn: Any, data: Data, by_deviation: bool) -> Data:
    """Data times or over a constant: a sum over space becomes a mean, running statistics normalise."""
    if data.summed:
        node = builder.node(Primitive.GLOB_AVG, data.nodes, squeezed=True)
        return Data(frozenset({node}), data.axes, squeezed=True, statistics=data.statistics)
    if by_deviation:
        return dataclasses.replace(data, normalised=Statistics.BATCH, kernel_open=False, norm_open=None)
    data = data.through(eqn.primitive.name)
    return data if data.axes and len(data.axes) == len(shape_of(eqn.outvars[0])) else _contracted(builder, eqn, data)


def _contracted(builder: TraceBuilder, eqn: Any, data: Data) -> Data:
    """A scalar that a constant broadcasts: nothing is known of its axes."""
    return merge_data(builder, [data], tuple(((ax.UNKNOWN, n),) for n in shape_of(eqn.outvars[0])))


def _multiply_data(builder: TraceBuilder, first: Data, second: Data) -> Data:
    for data, factor in ((first, second), (second, first)):
        spans_more = ax.labels_of(data.axes) > ax.labels_of(factor.axes)
        if factor.inverse_root and (data.statistics is None or spans_more):
            return scale_statistics(builder, data, factor)
    for data, gate in ((first, second), (second, first)):
        if gate.squeezed and not data.squeezed and not _only_means(builder, gate):
            return _gate(builder, data, gate)
    result = merge_data(builder, [first, second], ax.merge(first.axes, second.axes))
    if first.inverse_root != second.inverse_root and result.statistics is not None:
        # mean times deviation, on its way to join a bias: remembers the scale
        return dataclasses.replace(result, scale=first.scale or second.scale)
    return result


def _only_means(builder: TraceBuilder, data: Data) -> bool:
    return all(builder.nodes[row].primitive is Primitive.GLOB_AVG for row in data.nodes)


def _gate(builder: TraceBuilder, data: Data, gate: Data) -> Data:
    """Squeeze-and-excitation: a mean that drops the spatial axes is part of the gate (docs/method.md, section 2)."""
    seen: set[int] = set()
    rows = list(gate.nodes)
    while rows:
        row = rows.pop()
        node = builder.nodes[row]
        if row in seen or not node.squeezed:
            continue
        seen.add(row)
        if node.primitive is not Primitive.GLOB_AVG:
            rows.extend(node.predecessors)
        elif node.drops_axes:
            node.contracted = True
    row = builder.node(Primitive.CSE, data.nodes | gate.nodes)
    return Data(frozenset({row}), data.axes)


def _divide(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value:
    above, below = values
    if isinstance(below, Constant):
        if isinstance(above, Data):
            return _scaled_by_constant(builder, eqn, above, below.root)
        running = below.root and isinstance(above, Weight)
        return _over_running_deviation(builder, eqn, values) if running else contract(builder, eqn, values)
    if not isinstance(below, Data) or not below.root:
        return contract(builder, eqn, values)
    inverse = dataclasses.replace(below, root=False, inverse_root=True)
    if isinstance(above, Data):
        return _multiply_data(builder, above, inverse)
    return normalise(builder, eqn, inverse, above) if isinstance(above, Weight) else inverse


def _add(builder: TraceBuilder, eqn: Any, values: Sequence[Value], *, minus: bool = False) -> Value:
    first, second = values
    if isinstance(first, Data) and isinstance(second, Data):
        return _add_data(builder, first, second, minus=minus)
    data, other = (first, second) if isinstance(first, Data) else (second, first)
    if not isinstance(data, Data) or isinstance(other, Data):
        return contract(builder, eqn, values)
    if isinstance(other, Constant):
        known = len(data.axes) == len(shape_of(eqn.outvars[0]))
        data = data.through(eqn.primitive.name)
        return dataclasses.replace(data, summed=False) if known else _contracted(builder, eqn, data)
    if data.statistics is not None and data.scale is not None and not data.inverse_root:
        # mean times scale over deviation, which joins the bias
        return dataclasses.replace(data, shift=other.through("neg") if minus and data is first else other)
    if not minus:
        return add_parameter(builder, eqn, data, other)
    builder.keep(other, "subtracted from data, which no layer of the vocabulary does")
    return contract(builder, eqn, values)


def _add_data(builder: TraceBuilder, first: Data, second: Data, *, minus: bool) -> Data:
    axes = ax.merge(first.axes, second.axes)
    for data, shift in ((first, second), (second, first)):
        if data.norm_open is not None and shift.statistics is not None and shift.shift is not None:
            return shift_norm(builder, data, shift.shift.through("neg") if minus and shift is second else shift.shift)
    if minus:
        result = merge_data(builder, [first, second], axes)
        if second.statistics is None or result.nodes != first.nodes:
            return result
        return dataclasses.replace(  # centring: keeps what is known of the data
            first, axes=axes, kernel_open=False, root=False, inverse_root=False, statistics=result.statistics,
            centred=True, scale=None,
        )  # fmt: skip
    result = merge_data(builder, [first, second], axes)
    is_open = first.kernel_open and second.kernel_open
    if len(result.nodes) == 1:
        return dataclasses.replace(result, kernel_open=is_open)
    node = builder.node(Primitive.SUM, result.nodes, squeezed=result.squeezed)
    return Data(
        frozenset({node}), axes, squeezed=result.squeezed, kernel_open=is_open, scores=result.scores,
        statistics=result.statistics,
    )  # fmt: skip


RULES: dict[str, Rule] = {
    "mul": _multiply,
    "div": _divide,
    "add": _add,
    "add_any": _add,
    "sub": functools.partial(_add, minus=True),
    **dict.fromkeys(("rsqrt", "sqrt", "pow", "integer_pow"), _unary),
}

"""Walks a jaxpr on abstract values: calls are inlined, scans over layers unrolled."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ghn_jax.graphs.tracing import arithmetic, linear, pooling, views
from ghn_jax.graphs.tracing.axes import UNKNOWN
from ghn_jax.graphs.tracing.builder import TraceBuilder
from ghn_jax.graphs.tracing.combine import constant_of, contract, shape_of
from ghn_jax.graphs.tracing.values import Constant, Data, Value, Weight

RULES = {**views.RULES, **arithmetic.RULES, **linear.RULES, **pooling.RULES}


def walk(builder: TraceBuilder, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    """Values of the outputs of an open `jaxpr` from those of its constants and inputs."""
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        values = [_read(known, v) for v in eqn.invars]
        outputs = _apply(builder, eqn, values)
        if not isinstance(outputs, list):
            outputs = [outputs] * len(eqn.outvars)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [_read(known, v) for v in jaxpr.outvars]


def _read(known: Mapping[Any, Value], variable: Any) -> Value:
    """Value of a variable or literal."""
    if not hasattr(variable, "val"):
        return known[variable]
    return constant_of(variable.val)


def _apply(builder: TraceBuilder, eqn: Any, values: list[Value]) -> Value | list[Value]:
    """Outputs of one equation; one value stands for all of them."""
    name = eqn.primitive.name
    if name in _CONTROL:
        return _CONTROL[name](builder, eqn, values)
    called = _called(eqn)
    if called is not None:
        return _call(builder, called, values)
    if all(isinstance(v, Constant) for v in values):
        return arithmetic.constant(eqn, values)
    return RULES.get(name, contract)(builder, eqn, values)


def _called(eqn: Any) -> Any:
    """The jaxpr that an equation only calls: of jit, remat, custom_jvp, custom_vjp and whatever else takes one."""
    for parameter in eqn.params.values():
        jaxpr = getattr(parameter, "jaxpr", parameter)
        if hasattr(jaxpr, "eqns") and all(
            [shape_of(v) for v in ours] == [shape_of(v) for v in theirs]
            for ours, theirs in ((eqn.invars, jaxpr.invars), (eqn.outvars, jaxpr.outvars))
        ):
            return parameter
    return None


def _call(builder: TraceBuilder, jaxpr: Any, values: Sequence[Value]) -> list[Value]:
    """Inlines an open or closed jaxpr."""
    if hasattr(jaxpr, "consts"):
        return walk(builder, jaxpr.jaxpr, [constant_of(c) for c in jaxpr.consts], values)
    return walk(builder, jaxpr, [], values)


def _scan(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """Unrolls a scan whose steps have parameters of their own; else one step stands for all, which share them."""
    fixed, carry, stacked = _scan_operands(eqn, values)
    num_carry = len(carry)
    steps: Sequence[int] = range(eqn.params["length"])
    unrolled = any(isinstance(v, Weight) for v in stacked) or len(steps) == 1
    if not unrolled:
        steps = steps[:1]
    elif eqn.params["reverse"]:
        steps = steps[::-1]
    results: list[list[Value]] = []
    for step in steps:
        outputs = _call(builder, eqn.params["jaxpr"], [*fixed, *carry, *(_at(v, step) for v in stacked)])
        carry = _carried(carry, outputs[:num_carry], unrolled=unrolled)
        results.append(outputs[num_carry:])
    collected = [_stack(builder, parts) for parts in zip(*results, strict=True)]
    return [*carry, *collected]


def _scan_operands(eqn: Any, values: Sequence[Value]) -> tuple[list[Value], list[Value], list[Value]]:
    """Constants, carry and stacked operands of a scan; JAX 0.12 parts them by a tree, before it by numbers."""
    if "ft_in" in eqn.params:
        fixed, carry, stacked = eqn.params["ft_in"].update(values).unpack()
        return list(fixed), list(carry), list(stacked)
    first, second = eqn.params["num_consts"], eqn.params["num_consts"] + eqn.params["num_carry"]
    return list(values[:first]), list(values[first:second]), list(values[second:])


def _carried(before: Sequence[Value], after: Sequence[Value], *, unrolled: bool) -> list[Value]:
    """Carries after a step. Where one step stands for all, parameters that it changes may be anything in the end."""
    changed = any(isinstance(new, Weight) and new != old for old, new in zip(before, after, strict=True))
    if unrolled or not changed:
        return list(after)
    return [value.through("scan") if isinstance(value, Weight) else value for value in after]


def _at(value: Value, step: int) -> Value:
    """One step of a stacked value."""
    if isinstance(value, Weight):
        return views.index_leading(value, step)
    if isinstance(value, Data):
        return dataclasses.replace(value, axes=value.axes[1:])
    return Constant(inverse_root=value.inverse_root)


def _stack(builder: TraceBuilder, parts: Sequence[Value]) -> Value:
    """Values of all steps as one."""
    data = [v for v in parts if isinstance(v, Data)]
    weights = [v for v in parts if isinstance(v, Weight)]
    if data:
        for weight in weights:
            builder.keep(weight, "stacked with data by a scan")
        nodes = functools.reduce(frozenset.union, (v.nodes for v in data))
        return Data(nodes, (((UNKNOWN, len(parts)),), *data[0].axes), squeezed=all(v.squeezed for v in data))
    if weights:
        return Weight(
            None,
            (((UNKNOWN, len(parts)),), *weights[0].axes),
            others=functools.reduce(frozenset.union, (w.leaves for w in weights)),
        )
    return Constant()


def _cond(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> Value | list[Value]:
    """Follows the branch that a known index or the platform's default selects; other branches may not use parameters.

    Raises:
      ValueError: if the choice is made at run time and a branch takes parameters.
    """
    branches, index = eqn.params["branches"], values[0]
    if eqn.params.get("branches_platforms") is not None or len(branches) == 1:
        return _call(builder, branches[-1], values[1:])  # the default form: what XLA compiles on any platform
    if isinstance(index, Constant) and index.value is not None:
        return _call(builder, branches[min(max(int(index.value), 0), len(branches) - 1)], values[1:])
    _refuse_weights(eqn, values, "a branch chosen at run time")
    return _contract_all(builder, eqn, values)


def _while(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """A while loop as one contracted operation; raises ValueError if it takes parameters."""
    _refuse_weights(eqn, values, "a while loop")
    return _contract_all(builder, eqn, values)


def _refuse_weights(eqn: Any, values: Sequence[Value], what: str) -> None:
    names = sorted("/".join(leaf.path) for v in values if isinstance(v, Weight) for leaf in v.leaves)
    if names and any(isinstance(v, Data) for v in values):
        raise ValueError(
            f"cannot trace parameters {', '.join(names[:3])} through {what} ({eqn.primitive.name}): "
            "use jax.lax.scan over stacked parameters, or a Python loop"
        )


def _contract_all(builder: TraceBuilder, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """The same contracted value for each output, with axes of its rank."""
    result = contract(builder, eqn, values)
    if isinstance(result, Constant):
        return [result] * len(eqn.outvars)
    shapes = [shape_of(v) for v in eqn.outvars]
    return [dataclasses.replace(result, axes=tuple(((UNKNOWN, n),) for n in shape)) for shape in shapes]


_CONTROL = {"scan": _scan, "cond": _cond, "while": _while}

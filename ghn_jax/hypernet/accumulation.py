"""Adds a gradient to a sum where it is not zero.

Decoding a small slab reads a corner of large weights. Its gradient comes as that corner, padded with zeros to the size
of the weights, and adding it as it is would read and write all of them, for each of the hundred calls that decode eight
networks. The corner alone is added in place.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal, jaxpr_as_fun


def add_gradient(total: Any, gradient: Callable[..., tuple[Any, Any]], *arguments: Any) -> tuple[Any, Any]:
    """A function's first result added to `total`, and its second; to be traced inside `jax.jit` with `total` donated.

    Args:
      total: a pytree of arrays.
      gradient: a function whose first result is a pytree like `total`.
      arguments: of that function.
    """
    closed, results = jax.make_jaxpr(gradient, return_shape=True)(*arguments)
    leaves, tree = jax.tree.flatten(total)
    outputs, made_by = list(closed.jaxpr.outvars), {out: own for own in closed.jaxpr.eqns for out in own.outvars}
    starts: list[tuple[int, ...]] = []
    for place, leaf in enumerate(leaves):
        made = None if isinstance(outputs[place], Literal) else made_by.get(outputs[place])
        start = None if made is None else _corner(made)
        if made is not None and start is not None:
            outputs[place] = made.invars[0]
        starts.append(start or (0,) * leaf.ndim)
    jaxpr = closed.jaxpr.replace(outvars=outputs, debug_info=closed.jaxpr.debug_info.with_unknown_names())
    found = jaxpr_as_fun(closed.replace(jaxpr=jaxpr))(*jax.tree.leaves(arguments))
    added = [_add(*parts) for parts in zip(leaves, found, starts, strict=False)]
    rest = jax.tree.unflatten(jax.tree.structure(results[1]), found[len(leaves) :])
    return jax.tree.unflatten(tree, added), rest


def _corner(equation: Any) -> tuple[int, ...] | None:
    """Where an array lies in zeros, if an equation of a jaxpr pads it so."""
    if equation.primitive.name != "pad":
        return None
    value, padding = equation.invars[1], equation.params["padding_config"]
    is_zero = isinstance(value, Literal) and value.val == 0
    outside = all(low >= 0 and high >= 0 and between == 0 for low, high, between in padding)
    return tuple(low for low, _, _ in padding) if is_zero and outside else None


def _add(total: jax.Array, part: jax.Array, start: tuple[int, ...]) -> jax.Array:
    if part.shape == total.shape:
        return total + part
    end = [first + size for first, size in zip(start, part.shape, strict=True)]
    return jax.lax.dynamic_update_slice(total, jax.lax.slice(total, start, end) + part, start)

"""Functions without the outputs that need no computation.

An XLA program copies an argument that it also returns, and writes an array twice that it returns twice. A vjp returns
its residuals, many of which are arguments (inputs and weights of the layer) or the output itself: a third of all
residual bytes. Here such outputs are left out of the program and handed back from the caller's own arrays.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

Shapes = tuple[jax.ShapeDtypeStruct, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class LeanFunction:
    """A traced function of flat arguments whose outputs are arguments, constants or computed.

    Attributes:
      compute: arguments to those outputs that must be computed, each once; ready for `jax.jit`.
      arguments: shapes of the arguments.
      constants: outputs that depend on no argument.
      places: for each output its place in ``(*arguments, *constants, *computed)``.
      outputs: shapes of the outputs.
    """

    compute: Callable[..., Sequence[jax.Array]]
    arguments: Shapes
    constants: tuple[jax.Array, ...]
    places: tuple[int, ...]
    outputs: Shapes

    @property
    def given(self) -> int:
        """Number of arguments and constants: places from here on are computed."""
        return len(self.arguments) + len(self.constants)

    def select(self, outputs: Sequence[int]) -> "LeanFunction":
        """The same computation, with some outputs left out that others repeat."""
        chosen = [self.outputs[i] for i in outputs]
        return dataclasses.replace(self, places=tuple(self.places[i] for i in outputs), outputs=tuple(chosen))

    def compile(self, options: Mapping[str, Any] | None = None) -> Callable[..., list[jax.Array]]:
        """The compiled function, of flat arguments; all outputs, in order."""
        program: Callable[..., Sequence[jax.Array]] = _nothing
        if any(place >= self.given for place in self.places):
            program = jax.jit(self.compute).lower(*self.arguments).compile(None if options is None else dict(options))
        constants, places = self.constants, self.places

        def call(*arguments: jax.Array) -> list[jax.Array]:  # refers to nothing that tracing left behind
            everything = (*arguments, *constants, *program(*arguments))
            return [everything[place] for place in places]

        return call


def _nothing(*arguments: jax.Array) -> tuple[()]:
    return ()


def trace_lean(function: Callable[..., Any], *arguments: Any, device: Any = None) -> tuple[LeanFunction, Any]:
    """Traces `function` once.

    Args:
      function: of trees of arrays.
      *arguments: trees of `jax.ShapeDtypeStruct`, whose leaves in order are the arguments of the result.
      device: where constants lie; None for the default device.

    Returns:
      The function of flat arguments, and the tree that its outputs are the leaves of.
    """
    trees: list[Any] = []

    def leaves(*arguments: Any) -> list[jax.Array]:
        # JAX keeps the trees that its jitted functions give, and the tree of a vjp holds all that was traced for it.
        outputs, tree = jax.tree.flatten(function(*arguments))
        trees.append(tree)
        return outputs

    traced = jax.jit(leaves).trace(*arguments)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in traced.out_info)
    flat, closed = tuple(jax.tree.leaves(arguments)), traced.jaxpr
    variables, values = closed.jaxpr.outvars, dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))

    def is_constant(variable: Any) -> bool:
        return isinstance(variable, core.Literal) or variable in values

    constants = tuple(
        jax.device_put(jnp.asarray(v.val if isinstance(v, core.Literal) else values[v], shape.dtype), device)
        for v, shape in zip(variables, shapes, strict=True)
        if is_constant(v)
    )
    position = {variable: place for place, variable in enumerate(closed.jaxpr.invars)}
    first: list[int] = []  # for each computed array the first output that it is
    for number, variable in enumerate(variables):
        if not is_constant(variable) and variable not in position:
            position[variable] = len(flat) + len(constants) + len(first)
            first.append(number)
    of_constants = itertools.count(len(flat))
    places = tuple(next(of_constants) if is_constant(v) else position[v] for v in variables)
    run = core.jaxpr_as_fun(closed)

    def compute(*arguments: jax.Array) -> list[jax.Array]:
        everything = run(*arguments)
        return [everything[number] for number in first]

    return LeanFunction(compute, flat, constants, places, shapes), trees[0]

"""The static list of layer calls that makes up a network."""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn

from ghn_jax.deepnets.builder import Shape, Value, layer_graph, located
from ghn_jax.deepnets.cell import Cell
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.recipes import Identity, Recipe
from ghn_jax.deepnets.walk import IMAGES, Part, live_parts
from ghn_jax.fields import Range, check_number
from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.recipe_layer import DropPath, Norm, RecipeLayer


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One layer at its place in a network.

    Attributes:
      prefix: where the layer's parameters lie in the network's tree; () for the root.
      layer: the module, which holds no name and no parent.
      inputs: ids of the values that it takes.
      output: id of the value that it gives.
      kind: name of the op, for reports.
      branch: whether drop-path applies to the output: the op of a cell, unless it is an identity.
    """

    prefix: tuple[str, ...]
    layer: nn.Module
    inputs: tuple[int, ...]
    output: int
    kind: str
    branch: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layer calls of one network in an order in which they can run; value 0 is the images.

    Attributes:
      calls: the calls, none of which is without effect on the output.
      output: id of the logits.
      auxiliary: id of the logits of the auxiliary head, None for a plan without one.
    """

    calls: tuple[LayerCall, ...]
    output: int
    auxiliary: int | None = None


class _Value(NamedTuple):
    """A value in the making: its id and its shape for images of the network's size."""

    id: int
    shape: Shape


class _PlanBuilder:
    """Joins layers to a list of calls."""

    def __init__(self, norm: Norm | None, drop_path: float) -> None:
        self.calls: list[LayerCall] = []
        self._norm = norm
        self._drop_path = drop_path
        self._prefix: Path = ()

    def part(self, part: Part, inputs: tuple[_Value, ...]) -> _Value:
        """Adds a part of a network; a cell adds its layers one by one."""
        if not isinstance(part.recipe, Cell):
            return self.layer(part.name, part.recipe, *inputs, kind=part.kind)
        self._prefix = (part.name,)
        out = part.recipe(self, *inputs)
        self._prefix = ()
        return out

    def layer(self, name: str, recipe: Recipe, *inputs: _Value, kind: str = "", branch: bool = False) -> _Value:
        """Adds a layer, and drop-path behind a branch; what hands on its input is no layer."""
        local = tuple(Value(number, value.shape) for number, value in enumerate(inputs))
        try:
            measured = layer_graph(recipe, local, self._norm is not None)
        except ValueError as error:
            raise located(error, *self._prefix, name, kind) from None
        if isinstance(recipe, Identity):
            return inputs[0]
        norm = self._norm if measured.normed else None
        ids = tuple(value.id for value in inputs)
        out = self._call(
            (*self._prefix, name) if name else (), RecipeLayer(recipe, norm, parent=None), ids, kind, branch
        )
        if branch and self._drop_path > 0:
            out = self._call((), DropPath(self._drop_path, parent=None), (out,), "drop_path")
        return _Value(out, measured.output.shape)

    def _call(self, prefix: Path, layer: nn.Module, inputs: tuple[int, ...], kind: str, branch: bool = False) -> int:
        output = len(self.calls) + 1
        self.calls.append(LayerCall(prefix, layer, inputs, output, kind, branch))
        return output


@functools.lru_cache(maxsize=4096)
def network_plan(
    args: NetworkArgs, momentum: float | None = None, *, drop_path: float = 0.0, auxiliary: bool = False
) -> Plan:
    """Layer calls of the network of `args`; ops that do not reach the output are not in it.

    Args:
      args: the network.
      momentum: of running statistics in batch normalisation; None for statistics of the batch always.
      drop_path: probability of dropping an op's output for one image in training; each such op is followed by a call
        of kind ``drop_path``.
      auxiliary: whether an auxiliary head is called, too (paper of DARTS, Sec. A.2); its parameters lie under
        ``auxiliary_head``.

    Raises:
      ValueError: if the last cell outputs nothing, if values that meet differ in width or size, if the auxiliary
        head has nothing to read, or for a `momentum` or `drop_path` that is none.
    """
    check_number("drop_path", drop_path, Range(0, 1, whole=False, below=True))
    if momentum is not None:
        check_number("momentum", momentum, Range(0, 1, whole=False))
    build = _PlanBuilder(None if args.norm is None else Norm(momentum), drop_path)
    values = [_Value(IMAGES, Shape(3, args.image_size, args.image_size))]
    ids = {}
    for part in live_parts(args, auxiliary=auxiliary):
        try:
            values.append(build.part(part, tuple(values[i] for i in part.inputs)))
        except ValueError as error:
            raise ValueError(f"network arguments: {error}") from None
        ids[part.kind] = values[-1].id
    return Plan(tuple(build.calls), ids["classifier"], ids.get("auxiliary head"))

"""In which order the first meta-batches of a run come: those first that need few new layers.

Layers are compiled once and reused, so that a run without a compilation cache spends its first minutes compiling. How
many layers the first updates need depends on which networks come first: in the order of greatest overlap, the first 25
meta-batches of 8 training networks need 2.5 layers a network instead of 4.1. Later on hardly a layer is new in any
order.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from ghn_jax.deepnets.builder import Shape, Value, layer_graph
from ghn_jax.deepnets.cell import Cell
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.recipes import Identity, Recipe
from ghn_jax.deepnets.walk import live_parts


class LayerUse(NamedTuple):
    """A layer and the shapes of its inputs: what compiled layers are told apart by, as far as networks decide it."""

    recipe: Recipe
    inputs: tuple[Shape, ...]
    has_norm: bool


class _Uses:
    """`Assembler` whose values are shapes and which collects the layers."""

    def __init__(self, has_norm: bool) -> None:
        self.found: set[LayerUse] = set()
        self._has_norm = has_norm

    def layer(self, name: str, recipe: Recipe, *inputs: Shape, kind: str = "", branch: bool = False) -> Shape:
        """Output of a layer."""
        values = tuple([Value(number, shape) for number, shape in enumerate(inputs)])
        measured = layer_graph(recipe, values, self._has_norm)
        if not isinstance(recipe, Identity):
            self.found.add(LayerUse(recipe, inputs, self._has_norm and measured.normed))
        return measured.output.shape


def layer_uses(args: NetworkArgs) -> frozenset[LayerUse]:
    """The distinct layers of a network."""
    uses = _Uses(args.norm is not None)
    values = [Shape(3, args.image_size, args.image_size)]
    for part in live_parts(args):
        inputs = [values[i] for i in part.inputs]
        if isinstance(part.recipe, Cell):
            values.append(part.recipe(uses, *inputs))
        else:
            values.append(uses.layer(part.name, part.recipe, *inputs, kind=part.kind))
    return frozenset(uses.found)


def fewest_new_first(needs: Sequence[AbstractSet[LayerUse]]) -> list[int]:
    """An order of all items in which each is the one that needs the fewest layers that none before it needed.

    The first of several that need equally few comes first, so that the order depends on `needs` alone.
    """
    left, seen, order = dict(enumerate(needs)), set[LayerUse](), list[int]()
    while left:
        place = min(left, key=lambda place: len(left[place] - seen))
        seen |= left.pop(place)
        order.append(place)
    return order

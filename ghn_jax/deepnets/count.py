"""Number of weights of a network by arithmetic, operations without effect included (as the release counts)."""

import functools

from ghn_jax.deepnets.builder import Shape, measure
from ghn_jax.deepnets.cell import Cell
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.recipes import Recipe
from ghn_jax.deepnets.walk import all_parts


@functools.lru_cache(maxsize=1024)  # the same network is counted when it is drawn and when its width is
def parameter_count(args: NetworkArgs) -> int:
    """Weights that the network allocates: those of its graph and those of operations that do not reach its output.

    Raises:
      ValueError: if widths or sizes of added values differ.
    """
    count = _Count(args.norm is not None)
    values = [Shape(3, args.image_size, args.image_size)]
    seen: dict[tuple[Recipe, tuple[Shape, ...]], tuple[int, Shape]] = {}  # most cells of a network are alike
    total = 0
    for part in all_parts(args):
        inputs = tuple([values[i] for i in part.inputs])
        if not isinstance(part.recipe, Cell):
            weights, out = measure(part.recipe, inputs, count.has_norm)
        elif (part.recipe, inputs) in seen:
            weights, out = seen[part.recipe, inputs]
        else:
            count.weights = 0
            out = part.recipe(count, *inputs)
            weights = count.weights
            seen[part.recipe, inputs] = weights, out
        total += weights
        values.append(out)
    return total


class _Count:
    """Joins layers of a cell by their shapes and adds up their weights."""

    def __init__(self, has_norm: bool) -> None:
        self.has_norm = has_norm
        self.weights = 0

    def layer(self, name: str, recipe: Recipe, *inputs: Shape, kind: str = "", branch: bool = False) -> Shape:
        """Shape of a layer's output."""
        weights, out = measure(recipe, inputs, self.has_norm)
        self.weights += weights
        return out

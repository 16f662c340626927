"""Weights and products of a network by arithmetic."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

from ghn_jax.deepnets.builder import Shape, measure
from ghn_jax.deepnets.cell import Cell
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.recipes import Recipe
from ghn_jax.deepnets.walk import Part, all_parts, live_parts


@functools.lru_cache(maxsize=1024)  # the same network is counted when it is drawn and when its width is
def parameter_count(args: NetworkArgs) -> int:
    """Weights that the network allocates: those of its graph and those of operations that do not reach its output.

    So the release counts, too.

    Raises:
      ValueError: if widths or sizes of added values differ.
    """
    return _counts(args, all_parts(args)).weights


@functools.lru_cache(maxsize=1024)
def product_count(args: NetworkArgs) -> int:
    """About how many products the network needs for one image: pixels that go into each layer times its weights.

    Operations that do not reach the output are not computed and do not count. Of 16 networks of DeepNets-1M the time
    correlates with it by 0.70 (with what layers read and write by 0.55), enough to start long ones first.

    Raises:
      ValueError: if widths or sizes of added values differ.
    """
    return _counts(args, live_parts(args)).products


class _Counts(NamedTuple):
    weights: int
    products: int


def _counts(args: NetworkArgs, parts: Iterable[Part]) -> _Counts:
    count = _Count(args.norm is not None)
    values = [Shape(3, args.image_size, args.image_size)]
    seen: dict[tuple[Recipe, tuple[Shape, ...]], tuple[_Counts, Shape]] = {}  # most cells of a network are alike
    weights = products = 0
    for part in parts:
        inputs = tuple([values[i] for i in part.inputs])
        key = part.recipe, inputs
        if key not in seen:
            count.weights = count.products = 0
            if isinstance(part.recipe, Cell):
                out = part.recipe(count, *inputs)
            else:
                out = count.layer(part.name, part.recipe, *inputs)
            seen[key] = _Counts(count.weights, count.products), out
        own, out = seen[key]
        weights += own.weights
        products += own.products
        values.append(out)
    return _Counts(weights, products)


class _Count:
    """Joins layers by their shapes and adds up their weights and products."""

    def __init__(self, has_norm: bool) -> None:
        self.has_norm = has_norm
        self.weights = self.products = 0

    def layer(self, name: str, recipe: Recipe, *inputs: Shape, kind: str = "", branch: bool = False) -> Shape:
        """Shape of a layer's output."""
        weights, out = measure(recipe, inputs, self.has_norm)
        self.weights += weights
        self.products += weights * inputs[0].rows * inputs[0].columns
        return out

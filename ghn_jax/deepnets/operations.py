"""The table of operations of a cell: one row an op, read by whatever knows about ops."""

import dataclasses
import functools
from collections.abc import Callable

from ghn_jax.deepnets import recipes
from ghn_jax.deepnets.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Operation:
    """One op.

    Everything else about it follows from its recipe: nodes and parameters in the graph, number of weights, the Flax
    layer, names in dataset files.

    Attributes:
      recipe: its layer at a width and a stride, as ``recipe(width, stride)``.
      trainable: whether it counts as having parameters (a strided skip_connect does not, although it does).
      on_tokens: whether a network with this op is a transformer: it gets a stem of patches and keeps its resolution.
    """

    recipe: Callable[[int, int], Recipe]
    trainable: bool = True
    on_tokens: bool = False

    def at(self, width: int, stride: int) -> Recipe:
        """Its layer at a width and a stride; the same object every time, which is quick to look up."""
        return _recipe(self.recipe, width, stride)


@functools.lru_cache(maxsize=4096)
def _recipe(make: Callable[[int, int], Recipe], width: int, stride: int) -> Recipe:
    return make(width, stride)


OPERATIONS: dict[str, Operation] = {
    "none": Operation(recipes.Zero, trainable=False),
    "max_pool_3x3": Operation(functools.partial(recipes.Pool, "max"), trainable=False),
    "avg_pool_3x3": Operation(functools.partial(recipes.Pool, "avg"), trainable=False),
    "skip_connect": Operation(recipes.skip, trainable=False),
    "sep_conv_3x3": Operation(functools.partial(recipes.SeparableConv, 3)),
    "sep_conv_5x5": Operation(functools.partial(recipes.SeparableConv, 5)),
    "dil_conv_3x3": Operation(functools.partial(recipes.DilatedConv, 3)),
    "dil_conv_5x5": Operation(functools.partial(recipes.DilatedConv, 5)),
    "conv_1x1": Operation(functools.partial(recipes.ConvNorm, 1)),
    "conv_7x1_1x7": Operation(recipes.FactorisedConv),
    "conv_3x3": Operation(functools.partial(recipes.ConvNorm, 3)),
    "conv_5x5": Operation(functools.partial(recipes.ConvNorm, 5)),
    "conv_7x7": Operation(functools.partial(recipes.ConvNorm, 7)),
    "msa": Operation(recipes.TransformerBlock, on_tokens=True),
    "cse": Operation(recipes.SqueezeExcitation),
}
"""Every op by its name in a genotype, in the release's order, which the sampler draws from."""

OPS = tuple(OPERATIONS)
"""Names of the operations of a cell, in the release's order."""

UNTRAINABLE_OPS = tuple(name for name, op in OPERATIONS.items() if not op.trainable)
"""Operations without parameters, apart from the factorised reduction of a strided skip_connect."""

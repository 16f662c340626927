"""Numbers that our dataset files give to types and names of nodes, derived from the table of operations."""

import functools
import itertools
import zlib
from collections.abc import Iterator

from ghn_jax.deepnets import ends, recipes
from ghn_jax.deepnets.builder import Shape, Value, layer_graph
from ghn_jax.deepnets.files.names import release_name
from ghn_jax.deepnets.operations import OPERATIONS
from ghn_jax.deepnets.recipes import Recipe
from ghn_jax.graphs.param_spec import Role
from ghn_jax.graphs.vocabulary import Primitive

MOST_OPS = 20
"""Operations of a cell that have names: two for each of up to 10 steps."""

TYPES = (*(primitive.label for primitive in Primitive), "conv_1x1")
"""Types of nodes; a type's place is its number in our files."""

_WIDTH = 64
_ENDS = (
    *(ends.SimpleStem(_WIDTH, 3, False, False), ends.DoubleStem(_WIDTH, 3, False), ends.SecondStem(_WIDTH)),
    *(ends.TransformerStem(_WIDTH, False), ends.Classifier(10), ends.Classifier(10, (_WIDTH,))),
)
_PROJECTIONS = (recipes.ConvNorm(1, _WIDTH), recipes.FactorisedReduction(_WIDTH))


def op_names() -> tuple[str, ...]:
    """Names that nodes may have; a name's place is its number in our files."""
    return tuple(numbers_of_names())


@functools.cache
def numbers_of_names() -> dict[str, int]:
    """The number of each name: of nodes without parameters their type, of others that of the release's parameter."""
    ops = [op.recipe(_WIDTH, stride) for op in OPERATIONS.values() for stride in (1, 2)]
    names = itertools.chain(
        TYPES,
        _names((), _ENDS),
        *(_names((f"preprocess{index}",), _PROJECTIONS) for index in (0, 1)),
        *(_names((f"ops_{place}",), ops) for place in range(MOST_OPS)),
    )
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def fingerprint() -> int:
    """Tells tables apart: what was numbered by one must not be read by another."""
    return zlib.crc32("\n".join((*TYPES, *op_names())).encode())


def _names(prefix: tuple[str, ...], layers: list[Recipe] | tuple[Recipe, ...]) -> Iterator[str]:
    """Names of nodes with parameters; the bias of a norm belongs to the node of its scale."""
    for recipe in layers:
        layer = layer_graph(recipe, (Value(0, Shape(_WIDTH, 32, 32)),), norm=True)
        for path, _, _, role, _ in layer.tensors:
            if role is not Role.NORM_BIAS:
                yield release_name((*prefix, *path))

"""The graph under construction: nodes, candidate specs and the leaves that stay as they are."""

import dataclasses
from collections.abc import Iterable

from ghn_jax.graphs.param_spec import Path, Role
from ghn_jax.graphs.tracing.axes import UNKNOWN, Axis, Label
from ghn_jax.graphs.tracing.values import Data, Form, Leaf, Weight
from ghn_jax.graphs.vocabulary import Primitive

NodeShape = tuple[int, int, int, int]
NO_SHAPE: NodeShape = (0, 0, 0, 0)


@dataclasses.dataclass(slots=True)
class Node:
    """A node before contraction; `predecessors` are earlier rows."""

    primitive: Primitive
    shape: NodeShape
    predecessors: frozenset[int]
    squeezed: bool = False  # of a mean over space and what follows it
    drops_axes: bool | None = None  # of a mean over space: whether its first kernel sees no spatial axes
    contracted: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A leaf (or one layer of a stacked leaf) as a node uses it."""

    leaf: Leaf
    index: tuple[int, ...]
    shape: tuple[int, ...]
    axes: str
    role: Role
    node: int


def through_function(function: str) -> str:
    """Reason of a leaf that is not itself what a layer uses."""
    return f"reaches the data through {function}: the layer does not use the leaf itself"


def _is_what_the_layer_uses(weight: Weight, role: Role) -> bool:
    """Whether a value is the tensor that a layer uses in a role, given that some layers work on it first."""
    if weight.form is Form.STANDARDISED and role is not Role.KERNEL:
        return False
    if (weight.normalises is not None and role is not Role.SCALE) or (weight.recentred and role is not Role.NORM_BIAS):
        return False
    return not weight.altered


class TraceBuilder:
    """Collects what the rules find in a jaxpr."""

    def __init__(self) -> None:
        self.nodes: list[Node] = [Node(Primitive.INPUT, NO_SHAPE, frozenset())]
        self.candidates: list[Candidate] = []
        self.reasons: dict[Path, str] = {}
        self.altered: set[Leaf] = set()  # met data as functions of themselves: kept, wherever else they are used
        self.shared: dict[tuple[Leaf, tuple[int, ...], frozenset[int]], int] = {}

    def node(
        self,
        primitive: Primitive,
        predecessors: Iterable[int],
        shape: NodeShape = NO_SHAPE,
        *,
        squeezed: bool = False,
    ) -> int:
        """Adds a node and returns its row."""
        self.nodes.append(Node(primitive, shape, frozenset(predecessors), squeezed=squeezed))
        return len(self.nodes) - 1

    def use(self, weight: Weight, letters: str | None, role: Role, node: int) -> None:
        """Notes that `node` uses a leaf in a role; `letters` name the axes left after indexing, None if they cannot."""
        leaf = weight.leaf
        if leaf is None:
            self.keep(weight, "several leaves are joined into one tensor")
            return
        if not _is_what_the_layer_uses(weight, role):
            function = weight.function or ("a standardisation" if weight.form is Form.STANDARDISED else "mul")
            self.keep(weight.through(function), through_function(function))
            return
        stacked = tuple(axis for axis, _ in weight.index)
        if stacked != tuple(range(len(stacked))):
            self.keep(weight, "stacked along an axis that is not a leading one")
        elif letters is None:
            self.keep(weight, "its axes do not map onto the layer's axes")
        else:
            shape = leaf.shape[len(stacked) :]
            index = tuple(position for _, position in weight.index)
            self.candidates.append(Candidate(leaf, index, shape, letters, role, node))
        self.keep(dataclasses.replace(weight, leaf=None), f"modifies {'/'.join(leaf.path)}")

    def keep(self, weight: Weight, reason: str) -> None:
        """Notes why leaves are not predicted, unless a spec covers them after all; the first reason stays.

        Leaves that met data through a function are never predicted.
        """
        for leaf in weight.leaves:
            self.reasons.setdefault(leaf.path, reason)
        if weight.altered:
            self.altered |= weight.leaves

    def resolve_means(self, value: Data) -> Data:
        """`value` with means over space replaced by what they average: they turned out to be statistics."""
        nodes: set[int] = set()
        for row in value.nodes:
            node = self.nodes[row]
            nodes |= node.predecessors if node.primitive is Primitive.GLOB_AVG else {row}
        return dataclasses.replace(value, nodes=frozenset(nodes))


def letters_of(weight: Weight, pairs: Iterable[tuple[Axis, str]]) -> str | None:
    """One letter per axis of the leaf that is not indexed away, from the letters of the value's axes.

    Axes of size 1 that the value no longer has take the letter O. None if an axis has no letter or two of them.
    """
    letters: dict[Label, str] = {}
    for axis, letter in pairs:
        for label, size in axis:
            if label == UNKNOWN or (letters.setdefault(label, letter) != letter and size > 1):
                return None
    if weight.leaf is None:
        return None
    indexed = {axis for axis, _ in weight.index}
    text = ""
    for axis, size in enumerate(weight.leaf.shape):
        if axis in indexed:
            continue
        letter = letters.get(axis, "O" if size == 1 else None)
        if letter is None:
            return None
        text += letter
    return text

"""The graph under construction: nodes, candidate specs and the leaves that stay as they are."""

import dataclasses
from collections.abc import Iterable

from ghn_jax.graphs.param_spec import Path, Role
from ghn_jax.graphs.tracing.axes import UNKNOWN, Axis, Label
from ghn_jax.graphs.tracing.values import Data, Leaf, Weight
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


class GraphBuilder:
    """Collects what the rules find in a jaxpr."""

    def __init__(self) -> None:
        self.nodes: list[Node] = [Node(Primitive.INPUT, NO_SHAPE, frozenset())]
        self.candidates: list[Candidate] = []
        self.reasons: dict[Path, str] = {}
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
        """Notes why leaves are not predicted, unless a spec covers them after all; the first reason stays."""
        for leaf in weight.leaves:
            self.reasons.setdefault(leaf.path, reason)

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

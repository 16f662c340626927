"""`ParamSpec`: what a network asks of a hypernetwork, tensor by tensor.

Graphs list specs, the GHN produces one array per spec, networks consume the arrays by path.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ghn_jax.graphs.vocabulary import CONVOLUTIONS, NORMS, Primitive

if TYPE_CHECKING:
    import jax

Path = tuple[str, ...]
CanonicalShape = tuple[int, int, int, int]


class Role(enum.Enum):
    """How a tensor is decoded from its node's embedding (docs/method.md, section 6)."""

    KERNEL = "kernel"  # convolution or inner linear layer
    CLASSIFIER_KERNEL = "classifier_kernel"
    SCALE = "scale"  # weight of a normalisation layer
    NORM_BIAS = "norm_bias"  # bias of a normalisation layer, decoded from the norm's own node
    BIAS = "bias"  # bias of a convolution or linear layer, a node of its own
    CLASSIFIER_BIAS = "classifier_bias"
    POSITION = "position"  # learned position table

    __hash__ = object.__hash__  # members are single objects; Enum's own runs in Python, and specs are looked up often


KERNEL_ROLES = frozenset({Role.KERNEL, Role.CLASSIFIER_KERNEL, Role.POSITION})
VECTOR_ROLES = frozenset({Role.SCALE, Role.NORM_BIAS, Role.BIAS, Role.CLASSIFIER_BIAS})

_LETTERS = frozenset("OIHW")
_PRIMITIVES_OF_ROLE = {
    Role.KERNEL: CONVOLUTIONS,
    Role.CLASSIFIER_KERNEL: frozenset({Primitive.CONV}),
    Role.SCALE: NORMS,
    Role.NORM_BIAS: NORMS,
    Role.BIAS: frozenset({Primitive.BIAS}),
    Role.CLASSIFIER_BIAS: frozenset({Primitive.BIAS}),
    Role.POSITION: frozenset({Primitive.POS_ENC}),
}


@dataclasses.dataclass(frozen=True, slots=True)
class ParamSpec:
    """One predicted tensor: a parameter leaf of a network, or one layer of a stacked leaf.

    Attributes:
      path: keys of the leaf in the parameter pytree, such as ``("cells_0", "ops_1", "op_1", "kernel")``.
      shape: shape of the tensor as the network stores it (of ``leaf[index]`` where `index` is set).
      axes: one letter per axis of `shape`: O (out), I (in per group), H, W (kernel or table). ``"HWIO"`` is a
        Flax convolution, ``"IO"`` a dense kernel, ``"O"`` a vector, ``"OHWI"`` a position table (1, H, W, C).
        A repeated letter is an axis in parts, major first: a DenseGeneral query kernel (in, heads, dim) is ``"IOO"``.
      role: how the tensor is decoded.
      node: row of the node, in the architecture graph, whose embedding it is decoded from.
      index: position on leading stacked axes of the leaf (`nn.scan` over layers), empty for an ordinary leaf.
    """

    path: Path
    shape: tuple[int, ...]
    axes: str
    role: Role
    node: int
    index: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Path as text, such as ``cells_0/ops_1/op_1/kernel``."""
        text = "/".join(self.path)
        return text + str(list(self.index)) if self.index else text

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Rank in the reference's layout: 4 convolution or table, 2 linear layer, 1 vector."""
        letters = set(self.axes)
        if letters & {"H", "W"}:
            return 4 if {"H", "W"} <= letters else 3
        return 2 if "I" in letters else 1

    @property
    def canonical_shape(self) -> CanonicalShape:
        """(out, in per group, kernel height, kernel width), 1 for an axis that is absent."""
        sizes = {"O": 1, "I": 1, "H": 1, "W": 1}
        for letter, size in zip(self.axes, self.shape, strict=True):
            sizes[letter] *= size
        return sizes["O"], sizes["I"], sizes["H"], sizes["W"]

    def check(self, primitive: Primitive, architecture: str) -> None:
        """Raises ValueError if the spec contradicts itself or the `primitive` of its node."""
        if (  # the usual case first: this runs for every tensor of every sampled network
            len(self.axes) == len(self.shape)
            and _LETTERS.issuperset(self.axes)
            and min(self.shape, default=1) >= 1
            and primitive in _PRIMITIVES_OF_ROLE[self.role]
        ):
            return
        where = f"parameter {self.name!r} of architecture {architecture!r}"
        if len(self.axes) != len(self.shape) or not _LETTERS.issuperset(self.axes):
            raise ValueError(f"{where}: axes {self.axes!r} do not describe shape {self.shape}")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"{where}: every axis must be at least 1, got shape {self.shape}")
        if primitive not in _PRIMITIVES_OF_ROLE[self.role]:
            raise ValueError(
                f"{where}: a {self.role.value} cannot be decoded from a {primitive.label} node (node {self.node})"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class KeptParam:
    """A parameter leaf that is not predicted and keeps the network's own initialisation.

    Attributes:
      path: keys of the leaf in the parameter pytree.
      shape: its shape.
      reason: why no node of the vocabulary predicts it.
    """

    path: Path
    shape: tuple[int, ...]
    reason: str

    @property
    def name(self) -> str:
        """Path as text."""
        return "/".join(self.path)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def stack_leaf(parts: "Mapping[tuple[int, ...], jax.Array]", where: str) -> "jax.Array":
    """Tensors by `ParamSpec.index` -> one leaf with the indices as leading axes; the index () is a whole leaf.

    Raises:
      ValueError: if an index is missing; `where` names the leaf.
    """
    import jax.numpy as jnp  # processes that only draw architectures do not start JAX

    lead = tuple(max(sizes) + 1 for sizes in zip(*parts, strict=True))
    missing = [index for index in np.ndindex(lead) if index not in parts]
    if missing:
        raise ValueError(f"{where}: the graph has no tensor for index {missing[0]} of a leaf stacked as {lead}")
    tensors = jnp.stack([parts[index] for index in np.ndindex(lead)])
    return tensors.reshape(*lead, *tensors.shape[1:])

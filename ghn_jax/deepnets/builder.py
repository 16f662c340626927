"""Assembles an architecture graph node by node, with the specs of the tensors that each node predicts."""

from typing import NamedTuple

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import ParamSpec, Path, Role
from ghn_jax.graphs.vocabulary import Primitive

# Enum members are slow to look up and to convert; these are used for every node.
_INPUT, _CONV, _SEP_CONV, _DIL_CONV, _BIAS, _BN, _LN, _POS_ENC, _SUM, _CONCAT, _MAX_POOL = (
    int(p)
    for p in (
        Primitive.INPUT,
        Primitive.CONV,
        Primitive.SEP_CONV,
        Primitive.DIL_CONV,
        Primitive.BIAS,
        Primitive.BN,
        Primitive.LN,
        Primitive.POS_ENC,
        Primitive.SUM,
        Primitive.CONCAT,
        Primitive.MAX_POOL,
    )
)
_KERNEL, _SCALE, _NORM_BIAS = Role.KERNEL, Role.SCALE, Role.NORM_BIAS
_NO_SHAPE = (0, 0, 0, 0)


class Value(NamedTuple):
    """What flows along the edges: the node it comes from, its width (channels) and its size (height and width).

    Operations that are no nodes (ReLU, striding, ..) hand on the node of their input.
    """

    node: int
    width: int
    size: int


class GraphBuilder:
    """Lists that become an `ArchGraph`; nodes are added in topological order, the input first.

    Attributes:
      name: of the architecture, for errors.
      batch_norm: whether `norm` adds anything.
      cell: number of the cell that nodes are added to; `cells` keeps it for each node.
    """

    def __init__(self, name: str, batch_norm: bool = True):
        self.name = name
        self.batch_norm = batch_norm
        self.cell = 0
        self.cells: list[int] = []
        self._types: list[int] = []
        self._shapes: list[tuple[int, int, int, int]] = []
        self._sources: list[int] = []
        self._targets: list[int] = []
        self._params: list[ParamSpec] = []
        self.node(_INPUT)

    def node(self, kind: int, *sources: int, shape: tuple[int, int, int, int] = _NO_SHAPE) -> int:
        """Adds a node behind `sources`; returns its row."""
        row = len(self._types)
        self._types.append(kind)
        self._shapes.append(shape)
        self.cells.append(self.cell)
        for source in sources:
            self._sources.append(source)
            self._targets.append(row)
        return row

    def conv(self, x: Value, path: Path, width: int, kernel: tuple[int, int] = (1, 1), *, stride: int = 1) -> Value:
        """A convolution without bias, "same" padding."""
        height, breadth = kernel
        row = self.node(_CONV, x.node, shape=(width, x.width, height, breadth))
        self._params.append(ParamSpec((*path, "kernel"), (height, breadth, x.width, width), "HWIO", _KERNEL, row))
        return Value(row, width, x.size if stride == 1 else -(-x.size // stride))

    def depthwise(self, x: Value, path: Path, kernel: int, *, stride: int = 1, dilated: bool = False) -> Value:
        """A depthwise convolution without bias, "same" padding."""
        row = self.node(_DIL_CONV if dilated else _SEP_CONV, x.node, shape=(x.width, 1, kernel, kernel))
        self._params.append(ParamSpec((*path, "kernel"), (kernel, kernel, 1, x.width), "HWIO", _KERNEL, row))
        return Value(row, x.width, -(-x.size // stride))

    def dense(self, x: Value, path: Path, width: int, *, bias: bool = True, classifier: bool = False) -> Value:
        """A linear layer: a node for its weight and, with `bias`, one more behind it."""
        row = self.node(_CONV, x.node, shape=(width, x.width, 1, 1))
        role = Role.CLASSIFIER_KERNEL if classifier else _KERNEL
        self._params.append(ParamSpec((*path, "kernel"), (x.width, width), "IO", role, row))
        if bias:
            row = self.node(_BIAS, row, shape=(width, 1, 1, 1))
            role = Role.CLASSIFIER_BIAS if classifier else Role.BIAS
            self._params.append(ParamSpec((*path, "bias"), (width,), "O", role, row))
        return Value(row, width, x.size)

    def norm(self, x: Value, path: Path) -> Value:
        """A batch norm, if the network has any."""
        return self._norm(_BN, x, path) if self.batch_norm else x

    def layer_norm(self, x: Value, path: Path) -> Value:
        """A layer norm."""
        return self._norm(_LN, x, path)

    def _norm(self, kind: int, x: Value, path: Path) -> Value:
        """One node, which its bias comes out of, too."""
        width = x.width
        row = self.node(kind, x.node, shape=(width, 1, 1, 1))
        self._params.append(ParamSpec((*path, "scale"), (width,), "O", _SCALE, row))
        self._params.append(ParamSpec((*path, "bias"), (width,), "O", _NORM_BIAS, row))
        return Value(row, width, x.size)

    def pool(self, x: Value, *, stride: int, kind: int = _MAX_POOL) -> Value:
        """A 3x3 pooling, "same" padding."""
        return Value(self.node(kind, x.node, shape=(1, 1, 3, 3)), x.width, -(-x.size // stride))

    def add_position_table(self, x: Value, path: Path) -> Value:
        """A learned table added to `x`."""
        row = self.node(_POS_ENC, shape=(1, x.width, x.size, x.size))
        spec = ParamSpec((*path, "table"), (1, x.size, x.size, x.width), "OHWI", Role.POSITION, row)
        self._params.append(spec)
        return Value(self.node(_SUM, x.node, row), x.width, x.size)

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two values; no node if both come from the same one.

        Raises:
          ValueError: if their widths or sizes differ.
        """
        if x.width != y.width or x.size != y.size:
            raise ValueError(
                f"architecture {self.name!r}: cell {self.cell} adds {y.width} channels of {y.size} x {y.size} to "
                f"{x.width} channels of {x.size} x {x.size}; choose an image size and a genotype whose steps agree"
            )
        if x.node == y.node:
            return x
        return Value(self.node(_SUM, x.node, y.node), x.width, x.size)

    def concat(self, values: list[Value], width: int) -> Value:
        """Values side by side, together `width` channels; no node if all come from the same one.

        Raises:
          ValueError: if their sizes differ.
        """
        sizes = {value.size for value in values}
        if len(sizes) > 1:
            raise ValueError(
                f"architecture {self.name!r}: cell {self.cell} concatenates outputs of the sizes {sorted(sizes)}; "
                "choose an image size and a genotype whose steps agree"
            )
        sources = {value.node for value in values}
        row = values[0].node if len(sources) == 1 else self.node(_CONCAT, *sources)
        return Value(row, width, values[0].size)

    def finish(self) -> ArchGraph:
        """The graph of everything added so far."""
        count = len(self._types)
        keys = np.array(self._sources, np.int64) * count + self._targets
        keys.sort()
        edges = np.empty((len(keys), 2), np.int32)
        np.floor_divide(keys, count, out=edges[:, 0], casting="unsafe")
        np.remainder(keys, count, out=edges[:, 1], casting="unsafe")
        types, shapes = np.array(self._types, np.int8), np.array(self._shapes, np.int32)
        return ArchGraph(self.name, types, shapes, edges, tuple(self._params))

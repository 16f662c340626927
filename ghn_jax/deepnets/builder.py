"""Assembles an architecture graph node by node, with the specs of the tensors that each node predicts."""

from typing import NamedTuple

import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import ParamSpec, Path, Role
from ghn_jax.graphs.vocabulary import Primitive

_CONV, _SEP_CONV, _DIL_CONV = int(Primitive.CONV), int(Primitive.SEP_CONV), int(Primitive.DIL_CONV)
_BIAS, _BN, _LN = int(Primitive.BIAS), int(Primitive.BN), int(Primitive.LN)
_NO_SHAPE = (0, 0, 0, 0)


class Value(NamedTuple):
    """What flows along the edges: the node it comes from, its width (channels) and its size (height and width).

    Operations that are no nodes (ReLU, striding, ..) hand on the node of their input.
    """

    node: int
    width: int
    size: int


class GraphBuilder:
    """Lists that become an `ArchGraph`; nodes are added in topological order.

    Attributes:
      name: of the architecture, for errors.
      cell: number of the cell that nodes are added to; `cells` keeps it for each node.
    """

    def __init__(self, name: str):
        self.name = name
        self.cell = 0
        self.cells: list[int] = []
        self._types: list[int] = []
        self._shapes: list[tuple[int, int, int, int]] = []
        self._sources: list[int] = []
        self._targets: list[int] = []
        self._params: list[ParamSpec] = []

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

    def conv(
        self, x: Value, path: Path, width: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, size: int = 0
    ) -> Value:
        """A convolution without bias; "same" padding unless `size` gives the output's size."""
        height, breadth = kernel
        row = self.node(_CONV, x.node, shape=(width, x.width, height, breadth))
        spec = ParamSpec((*path, "kernel"), (height, breadth, x.width, width), "HWIO", Role.KERNEL, row)
        self._params.append(spec)
        return Value(row, width, size or -(-x.size // stride))

    def depthwise(self, x: Value, path: Path, kernel: int, stride: int, dilated: bool = False) -> Value:
        """A depthwise convolution without bias, "same" padding."""
        row = self.node(_DIL_CONV if dilated else _SEP_CONV, x.node, shape=(x.width, 1, kernel, kernel))
        spec = ParamSpec((*path, "kernel"), (kernel, kernel, 1, x.width), "HWIO", Role.KERNEL, row)
        self._params.append(spec)
        return Value(row, x.width, -(-x.size // stride))

    def dense(self, x: Value, path: Path, width: int, bias: bool = True, classifier: bool = False) -> Value:
        """A linear layer: a node for its weight and, with `bias`, one more behind it."""
        row = self.node(_CONV, x.node, shape=(width, x.width, 1, 1))
        role = Role.CLASSIFIER_KERNEL if classifier else Role.KERNEL
        self._params.append(ParamSpec((*path, "kernel"), (x.width, width), "IO", role, row))
        if bias:
            row = self.node(_BIAS, row, shape=(width, 1, 1, 1))
            role = Role.CLASSIFIER_BIAS if classifier else Role.BIAS
            self._params.append(ParamSpec((*path, "bias"), (width,), "O", role, row))
        return Value(row, width, x.size)

    def norm(self, x: Value, path: Path, layer: bool = False) -> Value:
        """A batch norm (or layer norm): one node, which its bias comes out of, too."""
        row = self.node(_LN if layer else _BN, x.node, shape=(x.width, 1, 1, 1))
        self._params.append(ParamSpec((*path, "scale"), (x.width,), "O", Role.SCALE, row))
        self._params.append(ParamSpec((*path, "bias"), (x.width,), "O", Role.NORM_BIAS, row))
        return Value(row, x.width, x.size)

    def position_table(self, x: Value, path: Path) -> Value:
        """A learned table added to `x`."""
        row = self.node(Primitive.POS_ENC, shape=(1, x.width, x.size, x.size))
        spec = ParamSpec((*path, "table"), (1, x.size, x.size, x.width), "OHWI", Role.POSITION, row)
        self._params.append(spec)
        return Value(self.node(Primitive.SUM, x.node, row), x.width, x.size)

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two values; no node if both come from the same one.

        Raises:
          ValueError: if their widths or sizes differ.
        """
        if x.width != y.width or x.size != y.size:
            raise ValueError(
                f"architecture {self.name!r}: cell {self.cell} adds {y.width} channels of {y.size} x {y.size} to "
                f"{x.width} channels of {x.size} x {x.size}; choose an image size and genotype whose steps agree"
            )
        if x.node == y.node:
            return x
        return Value(self.node(Primitive.SUM, x.node, y.node), x.width, x.size)

    def concat(self, values: list[Value], width: int) -> Value:
        """Values side by side, together `width` channels; no node if all come from the same one.

        Raises:
          ValueError: if their sizes differ.
        """
        if len({value.size for value in values}) > 1:
            raise ValueError(
                f"architecture {self.name!r}: cell {self.cell} concatenates outputs of the sizes "
                f"{sorted({value.size for value in values})}; choose a genotype whose steps agree"
            )
        sources = sorted({value.node for value in values})
        row = sources[0] if len(sources) == 1 else self.node(Primitive.CONCAT, *sources)
        return Value(row, width, values[0].size)

    def finish(self) -> ArchGraph:
        """The graph of everything added so far."""
        edges = np.array((self._sources, self._targets), np.int32).T
        edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
        return ArchGraph(
            self.name, np.array(self._types, np.int8), np.array(self._shapes, np.int32), edges, tuple(self._params)
        )

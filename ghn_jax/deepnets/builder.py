"""Recipes on the host: the nodes, edges and tensors of one layer, its number of weights and the shape it gives."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from ghn_jax.deepnets.recipes import Activation, Pair, PoolKind, Recipe
from ghn_jax.graphs.param_spec import Path, Role
from ghn_jax.graphs.vocabulary import Primitive

NodeShape = tuple[int, int, int, int]
_NO_SHAPE: NodeShape = (0, 0, 0, 0)
_NOWHERE = -1
_POOLS = {"max": Primitive.MAX_POOL, "avg": Primitive.AVG_POOL}


class Shape(NamedTuple):
    """Channels, height and width of a value."""

    width: int
    rows: int
    columns: int


class Value(NamedTuple):
    """What flows along edges: the node it comes from and its shape.

    Steps that are no nodes (ReLU, striding, ..) hand on the node of their input.
    """

    node: int
    shape: Shape


Tensor = tuple[Path, tuple[int, ...], str, Role, int]
"""Fields of a `ParamSpec`, which takes longer to make."""


@dataclasses.dataclass(frozen=True, slots=True)
class LayerGraph:
    """What one layer comes to in a graph; nodes are numbered from its inputs, which come first.

    Attributes:
      types: `Primitive` of each node.
      shapes: (out, in per group, kernel height, kernel width) of each node.
      edges: (from, to).
      tensors: what it predicts, with paths in the layer.
      output: the node and the shape of what it gives.
      weights: numbers in its tensors.
      normed: whether batch normalisation is a part of it.
    """

    types: tuple[int, ...]
    shapes: tuple[NodeShape, ...]
    edges: tuple[tuple[int, int], ...]
    tensors: tuple[Tensor, ...]
    output: Value
    weights: int
    normed: bool


@functools.lru_cache(maxsize=1 << 13)
def layer_graph(recipe: Recipe, inputs: tuple[Value, ...], norm: bool) -> LayerGraph:
    """The layer of a recipe behind given inputs, in a network with or without batch normalisation.

    Args:
      recipe: the layer.
      inputs: nodes 0, 1, ..; the same number twice for two inputs that come from one node.
      norm: whether `Builder.norm` adds anything.

    Raises:
      ValueError: if the layer cannot take these inputs.
    """
    build = LayerGraphBuilder(norm, 1 + max(value.node for value in inputs))
    output = recipe(build, *inputs)
    weights = sum(math.prod(shape) for _, shape, *_ in build.tensors)
    types, shapes, edges = tuple(build.types), tuple(build.shapes), tuple(build.edges)
    return LayerGraph(types, shapes, edges, tuple(build.tensors), output, weights, build.normed)


@functools.lru_cache(maxsize=1 << 14)
def measure(recipe: Recipe, inputs: tuple[Shape, ...], norm: bool) -> tuple[int, Shape]:
    """Number of weights of a layer and the shape of its output; arguments and errors as of `layer_graph`."""
    layer = layer_graph(recipe, tuple(Value(node, shape) for node, shape in enumerate(inputs)), norm)
    return layer.weights, layer.output.shape


def located(error: ValueError, *place: str) -> ValueError:
    """The same error with the place in front, such as ``cells_1 ops_0 conv_3x3``."""
    return ValueError(" ".join([*filter(None, place), str(error)]))


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


class LayerGraphBuilder:
    """`Builder` whose values are nodes with shapes; fields as in `LayerGraph`."""

    def __init__(self, has_norm: bool, num_inputs: int) -> None:
        self.types: list[int] = []
        self.shapes: list[NodeShape] = []
        self.edges: list[tuple[int, int]] = []
        self.tensors: list[Tensor] = []
        self.normed = False
        self._num_inputs = num_inputs
        self._has_norm = has_norm

    def _node(self, kind: int, *sources: Value, shape: NodeShape = _NO_SHAPE) -> int:
        row = self._num_inputs + len(self.types)
        self.types.append(int(kind))
        self.shapes.append(shape)
        self.edges.extend((source.node, row) for source in sources)
        return row

    def _param(self, path: Path, shape: tuple[int, ...], axes: str, role: Role, node: int) -> None:
        self.tensors.append((path, shape, axes, role, node))

    def width(self, x: Value) -> int:
        """Channels."""
        return x.shape.width

    def conv(
        self,
        x: Value,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> Value:
        """A node, by its groups and dilation one of three types."""
        kind = Primitive.CONV
        if groups > 1:
            kind = Primitive.SEP_CONV if dilation == 1 else Primitive.DIL_CONV
        into = x.shape.width // groups
        row = self._node(kind, x, shape=(width, into, *kernel))
        self._param((name, "kernel"), (*kernel, into, width), "HWIO", Role.KERNEL, row)
        sizes = [
            _strided(size, stride) if padding is None else _windows(size, window, stride, padding)
            for size, window, stride in zip(x.shape[1:], kernel, strides, strict=True)
        ]
        return Value(row, Shape(width, *sizes))

    def dense(self, x: Value, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> Value:
        """A node for the weight and, with `bias`, one more behind it."""
        into = x.shape.width
        row = self._node(Primitive.CONV, x, shape=(width, into, 1, 1))
        role = Role.CLASSIFIER_KERNEL if classifier else Role.KERNEL
        self._param((name, "kernel"), (into, width), "IO", role, row)
        out = Value(row, x.shape._replace(width=width))
        if bias:
            row = self._node(Primitive.BIAS, out, shape=(width, 1, 1, 1))
            role = Role.CLASSIFIER_BIAS if classifier else Role.BIAS
            self._param((name, "bias"), (width,), "O", role, row)
        return out._replace(node=row)

    def norm(self, x: Value, name: str) -> Value:
        """A node, if the network has batch normalisation."""
        self.normed = True
        return self._norm(Primitive.BN, x, name) if self._has_norm else x

    def layer_norm(self, x: Value, name: str) -> Value:
        """A node."""
        return self._norm(Primitive.LN, x, name)

    def _norm(self, kind: Primitive, x: Value, name: str) -> Value:
        """One node, which its bias comes out of, too."""
        width = x.shape.width
        row = self._node(kind, x, shape=(width, 1, 1, 1))
        self._param((name, "scale"), (width,), "O", Role.SCALE, row)
        self._param((name, "bias"), (width,), "O", Role.NORM_BIAS, row)
        return x._replace(node=row)

    def position_table(self, x: Value, name: str) -> Value:
        """A node without inputs, and a sum."""
        width, rows, columns = x.shape
        row = self._node(Primitive.POS_ENC, shape=(1, width, rows, columns))
        self._param((name, "table"), (1, rows, columns, width), "OHWI", Role.POSITION, row)
        return self.add(x, x._replace(node=row))

    def activation(self, x: Value, kind: Activation) -> Value:
        """No node."""
        return x

    def pool(self, x: Value, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> Value:
        """A node."""
        row = self._node(_POOLS[kind], x, shape=(1, 1, window, window))
        return Value(row, Shape(x.shape.width, *(_windows(size, window, stride, padding) for size in x.shape[1:])))

    def mean(self, x: Value, *, squeeze: bool = False) -> Value:
        """A node, but for that of a channel gate, which drops its axes."""
        row = x.node if squeeze else self._node(Primitive.GLOB_AVG, x)
        return Value(row, Shape(x.shape.width, 1, 1))

    def flatten(self, x: Value) -> Value:
        """No node."""
        width, rows, columns = x.shape
        return x._replace(shape=Shape(width * rows * columns, 1, 1))

    def attention(self, qkv: Value, heads: int) -> Value:
        """A node."""
        return Value(self._node(Primitive.MSA, qkv), qkv.shape._replace(width=qkv.shape.width // 3))

    def gate(self, x: Value, gate: Value) -> Value:
        """A node behind both."""
        return x._replace(node=self._node(Primitive.CSE, x, gate))

    def stride(self, x: Value, stride: int) -> Value:
        """No node."""
        width, rows, columns = x.shape
        return x._replace(shape=Shape(width, _strided(rows, stride), _strided(columns, stride)))

    def shift(self, x: Value) -> Value:
        """No node."""
        width, rows, columns = x.shape
        return x._replace(shape=Shape(width, rows + rows % 2 - 1, columns + columns % 2 - 1))

    def add(self, x: Value, y: Value) -> Value:
        """A node, unless both come from the same one.

        Raises:
          ValueError: if their shapes differ.
        """
        if x.shape != y.shape:
            (width, rows, columns), (other, height, length) = x.shape, y.shape
            raise ValueError(
                f"adds {other} channels of {height} x {length} to {width} channels of {rows} x {columns}; "
                "choose a genotype whose steps agree (without preproc, C_mult must be 1)"
            )
        return x if x.node == y.node else x._replace(node=self._node(Primitive.SUM, x, y))

    def concat(self, values: Sequence[Value], zeros: Sequence[int | None] = ()) -> Value:
        """A node, unless all come from the same one.

        Raises:
          ValueError: if their heights or widths differ.
        """
        sizes = {value.shape[1:] for value in values}
        if len(sizes) > 1:
            raise ValueError(f"joins outputs of the sizes {sorted(sizes)}; choose a genotype whose steps agree")
        sources = {value.node: value for value in values}
        row = values[0].node if len(sources) == 1 else self._node(Primitive.CONCAT, *sources.values())
        width = sum(value.shape.width for value in values) + sum(width or 0 for width in zeros)
        return Value(row, values[0].shape._replace(width=width))

    def zeros(self, x: Value, width: int, stride: int) -> Value:
        """A shape that comes from no node: what only zeros feed is no part of a graph."""
        return self.stride(Value(_NOWHERE, x.shape._replace(width=width)), stride)

    def dropout(self, x: Value, rate: float) -> Value:
        """No node."""
        return x

    def layer(self, name: str, recipe: Recipe, *inputs: Value, kind: str = "", branch: bool = False) -> Value:
        """The nodes of another recipe.

        Raises:
          ValueError: naming the layer, if it cannot take these inputs or outputs nothing but zeros.
        """
        if len(inputs) == 1:
            rows, local = [inputs[0].node], (Value(0, inputs[0].shape),)
        else:
            rows = list(dict.fromkeys([value.node for value in inputs]))
            local = tuple([Value(rows.index(node), shape) for node, shape in inputs])
        try:
            part = layer_graph(recipe, local, self._has_norm)
        except ValueError as error:
            raise located(error, name, kind) from None
        self.normed = self.normed or part.normed
        if not part.types:
            if part.output.node == _NOWHERE:
                raise located(ValueError("outputs zeros, which are no node"), name, kind)
            return Value(rows[part.output.node], part.output.shape)
        first = self._num_inputs + len(self.types)
        rows.extend(range(first, first + len(part.types)))
        self.types.extend(part.types)
        self.shapes.extend(part.shapes)
        self.edges.extend([(rows[source], rows[target]) for source, target in part.edges])
        if part.tensors:
            prefix = (name,) if name else ()
            self.tensors.extend(
                [(prefix + path, shape, axes, role, rows[node]) for path, shape, axes, role, node in part.tensors]
            )
        return Value(rows[part.output.node], part.output.shape)


def _windows(size: int, window: int, stride: int, padding: int) -> int:
    """Whole windows along a side."""
    if size + 2 * padding < window:
        least = window - 2 * padding
        raise ValueError(f"needs features of at least {least} x {least} pixels, got {size}")
    return (size + 2 * padding - window) // stride + 1

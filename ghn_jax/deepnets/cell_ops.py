"""Graphs of a cell's operations (SPEC: target networks)."""

from collections.abc import Callable

from ghn_jax.deepnets.builder import GraphBuilder, Value
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.vocabulary import Primitive

Operation = Callable[[GraphBuilder, Value, Path, int, int], Value]
"""Adds an op behind a value, under a path, to a width, with a stride; returns its output."""

_AVG_POOL, _MSA, _CSE = int(Primitive.AVG_POOL), int(Primitive.MSA), int(Primitive.CSE)


def relu_conv_norm(build: GraphBuilder, x: Value, path: Path, width: int) -> Value:
    """ReLU-Conv1x1-BN."""
    return build.norm(build.conv(x, (*path, "op_1"), width), (*path, "op_2"))


def factorised_reduction(build: GraphBuilder, x: Value, path: Path, width: int) -> Value:
    """Two strided 1x1 convolutions of half width, the second on the input shifted by a pixel; concatenated; BN."""
    first = build.conv(x, (*path, "conv_1"), width // 2, stride=2)
    second = build.conv(x._replace(size=x.size - 1), (*path, "conv_2"), width // 2, stride=2)
    return build.norm(build.concat([first, second], 2 * (width // 2)), (*path, "bn"))


def _conv(kernel: int) -> Operation:
    def add(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
        x = build.conv(x, (*path, "op_1"), width, (kernel, kernel), stride=stride)
        return build.norm(x, (*path, "op_2"))

    return add


def _conv_in_two(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    x = build.conv(x, (*path, "op_1"), width, (1, 7), stride=stride)  # strides one axis each; size counts both
    x = build.conv(x, (*path, "op_2"), width, (7, 1))
    return build.norm(x, (*path, "op_3"))


def _sep_conv(kernel: int) -> Operation:
    def add(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
        x = build.depthwise(x, (*path, "op_1"), kernel, stride=stride)
        x = build.norm(build.conv(x, (*path, "op_2"), x.width), (*path, "op_3"))
        x = build.depthwise(x, (*path, "op_5"), kernel)
        return build.norm(build.conv(x, (*path, "op_6"), width), (*path, "op_7"))

    return add


def _dil_conv(kernel: int) -> Operation:
    def add(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
        x = build.depthwise(x, (*path, "op_1"), kernel, stride=stride, dilated=True)
        return build.norm(build.conv(x, (*path, "op_2"), width), (*path, "op_3"))

    return add


def _skip(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    if stride > 1:
        return factorised_reduction(build, x, path, width)
    _check_width(build, "skip_connect", x, width)
    return x


def _max_pool(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    _check_width(build, "max_pool_3x3", x, width)
    return build.pool(x, stride=stride)


def _avg_pool(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    _check_width(build, "avg_pool_3x3", x, width)
    return build.pool(x, stride=stride, kind=_AVG_POOL)


def _attention(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    """Pre-norm transformer block."""
    _check_width(build, "msa", x, width)
    y = build.dense(build.layer_norm(x, (*path, "ln1")), (*path, "to_qkv"), 3 * width, bias=False)
    y = Value(build.node(_MSA, y.node), width, x.size)
    x = build.add(build.dense(y, (*path, "to_out_0"), width), x)
    y = build.dense(build.layer_norm(x, (*path, "ln2")), (*path, "ff", "net_0"), width)
    x = build.add(build.dense(y, (*path, "ff", "net_3"), width), x)
    return x._replace(size=-(-x.size // stride))


def _gate(build: GraphBuilder, x: Value, path: Path, width: int, stride: int) -> Value:
    """Squeeze-and-excitation: the spatial mean drops its axes, so it is no node."""
    _check_width(build, "cse", x, width)
    gate = build.dense(x, (*path, "fc1"), width // 2)
    gate = build.dense(gate, (*path, "fc2"), width)
    return Value(build.node(_CSE, x.node, gate.node), width, -(-x.size // stride))


def _check_width(build: GraphBuilder, op: str, x: Value, width: int) -> None:
    if x.width != width:
        raise ValueError(
            f"architecture {build.name!r}: {op} of cell {build.cell} cannot turn {x.width} channels into {width}; "
            "use preproc or C_mult = 1"
        )


OPERATIONS: dict[str, Operation] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip,
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
    "conv_1x1": _conv(1),
    "conv_7x1_1x7": _conv_in_two,
    "conv_3x3": _conv(3),
    "conv_5x5": _conv(5),
    "conv_7x7": _conv(7),
    "msa": _attention,
    "cse": _gate,
}
"""Every operation but `none`, by its name in a genotype."""

"""Graphs of a cell's operations (SPEC: target networks)."""

from ghn_jax.deepnets.builder import GraphBuilder, Value
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.vocabulary import Primitive

_MAX_POOL, _AVG_POOL, _MSA, _CSE = (
    int(p) for p in (Primitive.MAX_POOL, Primitive.AVG_POOL, Primitive.MSA, Primitive.CSE)
)


def operation(build: GraphBuilder, op: str, x: Value, path: Path, width: int, stride: int, batch_norm: bool) -> Value:
    """Adds one op of a genotype, from `x` to `width` channels.

    Raises:
      ValueError: if the op cannot change the width and is asked to.
    """
    if op == "skip_connect" and stride > 1:
        return factorised_reduction(build, x, path, width, batch_norm)
    if op in ("skip_connect", "max_pool_3x3", "avg_pool_3x3", "msa", "cse"):
        if x.width != width:
            raise ValueError(
                f"architecture {build.name!r}: {op} of cell {build.cell} cannot turn {x.width} channels into {width}; "
                "use preproc or C_mult = 1"
            )
        return _WIDTH_KEEPING[op](build, x, path, stride)
    if op == "conv_7x1_1x7":
        x = build.conv(x, (*path, "op_1"), width, (1, 7), stride)
        x = build.conv(x._replace(size=x.size), (*path, "op_2"), width, (7, 1))
        return build.norm(x, (*path, "op_3")) if batch_norm else x
    kernel = int(op[-1])
    if op.startswith("conv"):
        return relu_conv_norm(build, x, path, width, batch_norm, kernel, stride)
    x = _separable(build, x, path, 1, x.width if op.startswith("sep") else width, kernel, stride, batch_norm, op[0] == "d")
    if op.startswith("sep"):
        x = _separable(build, x, path, 5, width, kernel, 1, batch_norm, False)
    return x


def relu_conv_norm(
    build: GraphBuilder, x: Value, path: Path, width: int, batch_norm: bool, kernel: int = 1, stride: int = 1
) -> Value:
    """ReLU-Conv-BN."""
    x = build.conv(x, (*path, "op_1"), width, (kernel, kernel), stride)
    return build.norm(x, (*path, "op_2")) if batch_norm else x


def factorised_reduction(build: GraphBuilder, x: Value, path: Path, width: int, batch_norm: bool) -> Value:
    """Two strided 1x1 convolutions of half width, the second on the input shifted by a pixel; concatenated; BN."""
    first = build.conv(x, (*path, "conv_1"), width // 2, stride=2)
    second = build.conv(x, (*path, "conv_2"), width // 2, size=x.size // 2)
    x = build.concat([first, second], 2 * (width // 2))
    return build.norm(x, (*path, "bn")) if batch_norm else x


def _separable(
    build: GraphBuilder,
    x: Value,
    path: Path,
    place: int,
    width: int,
    kernel: int,
    stride: int,
    batch_norm: bool,
    dilated: bool,
) -> Value:
    x = build.depthwise(x, (*path, f"op_{place}"), kernel, stride, dilated)
    x = build.conv(x, (*path, f"op_{place + 1}"), width)
    return build.norm(x, (*path, f"op_{place + 2}")) if batch_norm else x


def _skip(build: GraphBuilder, x: Value, path: Path, stride: int) -> Value:
    return x


def _max_pool(build: GraphBuilder, x: Value, path: Path, stride: int) -> Value:
    return Value(build.node(_MAX_POOL, x.node, shape=(1, 1, 3, 3)), x.width, -(-x.size // stride))


def _avg_pool(build: GraphBuilder, x: Value, path: Path, stride: int) -> Value:
    return Value(build.node(_AVG_POOL, x.node, shape=(1, 1, 3, 3)), x.width, -(-x.size // stride))


def _attention(build: GraphBuilder, x: Value, path: Path, stride: int) -> Value:
    """Pre-norm transformer block."""
    y = build.norm(x, (*path, "ln1"), layer=True)
    y = build.dense(y, (*path, "to_qkv"), 3 * x.width, bias=False)
    y = Value(build.node(_MSA, y.node), x.width, x.size)
    x = build.add(build.dense(y, (*path, "to_out_0"), x.width), x)
    y = build.norm(x, (*path, "ln2"), layer=True)
    y = build.dense(y, (*path, "ff", "net_0"), x.width)
    x = build.add(build.dense(y, (*path, "ff", "net_3"), x.width), x)
    return x._replace(size=-(-x.size // stride))


def _gate(build: GraphBuilder, x: Value, path: Path, stride: int) -> Value:
    """Squeeze-and-excitation: the spatial mean drops its axes, so it is no node."""
    gate = build.dense(x, (*path, "fc1"), x.width // 2)
    gate = build.dense(gate, (*path, "fc2"), x.width)
    return Value(build.node(_CSE, x.node, gate.node), x.width, -(-x.size // stride))


_WIDTH_KEEPING = {
    "skip_connect": _skip,
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "msa": _attention,
    "cse": _gate,
}

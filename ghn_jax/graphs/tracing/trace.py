"""`trace`: the architecture graph of any JAX model, from its jaxpr."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing.axes import data_axes, leaf_axes
from ghn_jax.graphs.tracing.builder import TraceBuilder
from ghn_jax.graphs.tracing.combine import constant_of
from ghn_jax.graphs.tracing.finish import finish
from ghn_jax.graphs.tracing.frontends import abstractly, as_traceable, path_of
from ghn_jax.graphs.tracing.input_layout import batch_axes
from ghn_jax.graphs.tracing.values import Constant, Data, Leaf, Value, Weight
from ghn_jax.graphs.tracing.walk import walk


def trace(
    model: Any,
    input_shape: Sequence[int],
    *,
    params: Any = None,
    name: str | None = None,
    layout: str | None = None,
    strict: bool = False,
    call_kwargs: Mapping[str, Any] | None = None,
    output: Callable[[Any], Any] | None = None,
) -> ArchGraph:
    """The architecture graph of a model, read from its jaxpr (paper, section 2; docs/method.md, section 3).

    Evaluation is abstract: no weight is allocated and nothing is run. Leaves that no layer of the vocabulary covers are
    listed in `ArchGraph.kept` with the reason.

    Args:
      model: a Flax linen module, a Flax nnx module (concrete, or abstract from `nnx.eval_shape`), or a function
        ``(params, images) -> logits``.
      input_shape: of one image, (H, W, C), or of a batch, (B, H, W, C).
      params: for a function its parameters: a pytree of arrays or of `jax.ShapeDtypeStruct`.
      name: of the architecture; the model's name if None.
      layout: the axes of `input_shape`, one letter each: N (or B) for images, C for channels, any other for space, such
        as ``"HWC"``, ``"NCHW"`` or ``"NLC"``. If None, channels come last, or first where only that can be meant:
        1 to 4 channels before two equal sides.
      strict: whether leaves that cannot be predicted are an error.
      call_kwargs: further arguments of the model's call. Flags such as `train` and `deterministic` are set for
        evaluation by themselves unless named here.
      output: picks the logits from what the model returns, where that is more than one array.

    Returns:
      The graph, its specs in the layout of the model's leaves. Paths are the keys of the parameter pytree as text.

    Raises:
      ValueError: for a model that cannot be traced, an input shape that is none or may be read in two ways, leaves
        whose paths are the same text, and with `strict` for leaves that cannot be predicted.
    """
    name = name or str(getattr(model, "__name__", None) or type(model).__name__)
    shape, labels = batch_axes(input_shape, layout)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    traceable = as_traceable(model, images, params, call_kwargs or {})

    def forward(params: Any, state: Any, x: Any) -> Any:
        result = traceable.apply(params, state, x)
        return result if output is None else output(result)

    closed = abstractly(lambda: jax.make_jaxpr(forward)(traceable.params, traceable.state, images))
    if len(closed.out_avals) != 1:
        raise ValueError(
            f"architecture {name!r}: the model returns {len(closed.out_avals)} arrays; "
            "choose the logits with `output`, such as output=lambda result: result[0]"
        )
    builder = TraceBuilder()
    leaves = [Leaf(path_of(keys), leaf.shape) for keys, leaf in jax.tree_util.tree_leaves_with_path(traceable.params)]
    _check_distinct(leaves, name)
    values: list[Value] = [Weight(leaf, leaf_axes(leaf.shape)) for leaf in leaves]
    values += [Constant()] * len(jax.tree.leaves(traceable.state))
    values.append(Data(frozenset({0}), data_axes(labels, shape)))
    (result,) = walk(builder, closed.jaxpr, [constant_of(c) for c in closed.consts], values)
    graph = finish(builder, result, leaves, name)
    if strict and graph.kept:
        lines = "; ".join(f"{leaf.name} {leaf.shape}: {leaf.reason}" for leaf in graph.kept)
        raise ValueError(f"architecture {name!r}: {len(graph.kept)} leaves cannot be predicted: {lines}")
    return graph


def _check_distinct(leaves: Sequence[Leaf], name: str) -> None:
    """Raises ValueError if two leaves have the same path: predicted tensors are named by it."""
    seen: set[Path] = set()
    for leaf in leaves:
        if leaf.path in seen:
            raise ValueError(
                f"architecture {name!r}: two parameter leaves have the path {'/'.join(leaf.path)!r}; "
                "rename one (keys such as 1 and '1' are the same text)"
            )
        seen.add(leaf.path)

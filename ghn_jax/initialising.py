"""`init_like`: a model's variables with predicted parameters, ready to fine-tune.

Stands beside the packages because it joins two of them: the tracer lists what a model needs, the hypernetwork predicts
it.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing import trace
from ghn_jax.graphs.tracing.frontends import evaluation_flags, path_of
from ghn_jax.hypernet import predict_params, prepare
from ghn_jax.hypernet.api import GHNSource, resolve_ghn
from ghn_jax.hypernet.training_range import warn_once


def init_like(
    model: Any,
    rng: jax.Array,
    x: Any,
    ghn: GHNSource = None,
    *,
    layout: str | None = None,
    params: Any = None,
    call_kwargs: Mapping[str, Any] | None = None,
    output: Callable[[Any], Any] | None = None,
) -> Any:
    """Initialises a model with parameters that a hypernetwork predicts for its architecture.

    Leaves that cannot be predicted (`ArchGraph.kept` of `trace`) and the classifier of a task with another number of
    classes than the hypernetwork's keep the model's own initialisation, as do batch statistics and all other state.

    Args:
      model: a Flax linen module, a concrete Flax nnx module, or a function ``(params, images) -> logits``.
      rng: key of the model's own initialisation (linen).
      x: a batch of images as the model takes them, such as (B, H, W, C), or their shape and type; only those are
        looked at.
      ghn: a loaded hypernetwork, a source for `load_ghn`, or None for the packaged default.
      layout: the axes of `x`, such as ``NHWC`` or ``NCHW``, as in `trace`; needed where its shape leaves them open.
      params: for a function its own initial parameters.
      call_kwargs: further arguments of the model's call, as in `trace`.
      output: picks the logits from what the model returns, as in `trace`.

    Returns:
      linen: the variables, ``{"params": .., "batch_stats": .., ..}``; nnx: the state, for `nnx.update`; a function:
      a pytree like `params`. Types of all leaves are the model's.

    Raises:
      ValueError: for a model that cannot be traced, a shape that may have its channels first or last, an `x` that is
        no array and a `rng` that is no key.

    Warns:
      UserWarning: as `predict`.
    """
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise ValueError(f"x must be an array of images or their jax.ShapeDtypeStruct, got a {type(x).__name__}")
    linen, nnx = sys.modules.get("flax.linen"), sys.modules.get("flax.nnx")
    is_linen = linen is not None and isinstance(model, linen.Module)
    if is_linen and not _is_key(rng):
        raise ValueError(f"rng must be one key, such as jax.random.key(0), got {rng!r}")
    graph = trace(model, x.shape, layout=layout, params=params, call_kwargs=call_kwargs, output=output)
    loaded = resolve_ghn(ghn)
    warn_once(loaded.trained_on, [graph])
    prepared = prepare(loaded.config, [graph], classifier=graph.num_classes == loaded.config.num_classes)
    (predicted,) = predict_params(loaded.ghn, loaded.variables, prepared)
    if is_linen:
        return _init_linen(model, rng, x, call_kwargs or {}, predicted)
    if nnx is not None and isinstance(model, nnx.Module):
        state = jax.tree.map(lambda leaf: leaf, nnx.state(model))  # variables of its own
        nnx.replace_by_pure_dict(state, replace_leaves(nnx.to_pure_dict(state), predicted))
        return state
    return replace_leaves(params, predicted)


def _is_key(rng: Any) -> bool:
    """Whether it is a key of `jax.random.key`, or one of the older form of `jax.random.PRNGKey`."""
    dtype, shape = getattr(rng, "dtype", None), getattr(rng, "shape", None)
    if dtype is None:
        return False
    return (
        shape == () if jax.numpy.issubdtype(dtype, jax.dtypes.prng_key) else dtype == "uint32" and len(shape or ()) == 1
    )


def replace_leaves(tree: Any, leaves: Mapping[Path, jax.Array]) -> Any:
    """A pytree with the leaves at some paths replaced, in their own types."""

    def replaced(keys: tuple[Any, ...], leaf: Any) -> Any:
        value = leaves.get(path_of(keys))
        return leaf if value is None else value.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(replaced, tree)


def _init_linen(
    model: Any, rng: jax.Array, x: Any, call_kwargs: Mapping[str, Any], predicted: Mapping[Path, jax.Array]
) -> Any:
    import flax.linen as nn

    kwargs = {**evaluation_flags(type(model).__call__), **call_kwargs}
    params_rng, dropout_rng = jax.random.split(rng)
    images = jax.numpy.zeros(x.shape, x.dtype)
    # Compiled, so that the forward pass that only serves shapes is dropped.
    init = jax.jit(lambda rngs: model.init(rngs, images, **kwargs))
    variables = init({"params": params_rng, "dropout": dropout_rng})
    own = nn.meta.unbox(variables["params"])
    return {**variables, "params": nn.meta.replace_boxed(variables["params"], replace_leaves(own, predicted))}

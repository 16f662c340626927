"""Statistics of batch normalisation re-estimated over batches of images: the only such code here, for any linen model.

What a layer is given is the mean over batches of its input's mean and of its unbiased variance (paper, C.1: 200
training batches).
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.module import InterceptorContext

from ghn_jax.graphs.tracing.frontends import evaluation_flags
from ghn_jax.networks.norms import BatchNorm

STATISTICS = "batch_stats"
"""The collection of running statistics."""


def with_batch_statistics(module: nn.Module, variables: Any, *inputs: Any, **arguments: Any) -> tuple[Any, Any]:
    """Calls a module so that every BN layer normalises by the statistics of its own input, and returns those.

    The module is called as for evaluation, so that nothing else trains (dropout, drop-path); its momenta, and whether
    its layers store biased variances, do not matter.

    Args:
      module: any linen module.
      variables: its variables; ``batch_stats`` may be left out.
      *inputs: of its call.
      **arguments: of its call; they must say that it does not train.

    Returns:
      What the module returns, and the collection ``batch_stats``, with the mean and the unbiased variance of this
      batch at every layer that was called.

    Raises:
      ValueError: for batch normalisation of a type that is not known, or with a mask.
    """
    with nn.intercept_methods(_normalise_by_batch):
        output, changed = module.apply(
            variables, *inputs, **arguments, mutable=[STATISTICS], rngs={"dropout": jax.random.key(0)}
        )
    return output, changed.get(STATISTICS, {})


def _normalise_by_batch(call: Any, inputs: Any, arguments: Any, context: InterceptorContext) -> Any:
    """Lets a BN layer use the statistics of its input as if they were its running ones."""
    layer = context.module
    if context.method_name != "__call__":
        return call(*inputs, **arguments)
    if not isinstance(layer, nn.BatchNorm | BatchNorm):
        if layer.has_variable(STATISTICS, "mean"):
            raise ValueError(f"{'/'.join(layer.path)}: the statistics of a {type(layer).__name__} cannot be estimated")
        return call(*inputs, **arguments)
    if isinstance(layer, BatchNorm) and layer.momentum is None:
        return call(*inputs, **arguments)  # it always normalises by the batch and keeps no statistics
    if arguments.get("mask") is not None:
        raise ValueError(f"{'/'.join(layer.path)}: statistics of batch normalisation with a mask cannot be estimated")
    x = inputs[0] if inputs else arguments["x"]
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = np.atleast_1d(layer.axis if isinstance(layer, nn.BatchNorm) else -1)  # one or several
    kept = {int(axis) % x.ndim for axis in axes}
    reduced = tuple(axis for axis in range(x.ndim) if axis not in kept)
    mean, var = jnp.mean(x, reduced), jnp.var(x, reduced)  # in two passes
    count = x.size // mean.size
    layer.put_variable(STATISTICS, "mean", mean)
    layer.put_variable(STATISTICS, "var", var)
    output = call(*inputs, **arguments)
    layer.put_variable(STATISTICS, "mean", mean)
    layer.put_variable(STATISTICS, "var", var * (count / max(count - 1, 1)))
    return output


def mean_over_batches(found: Iterable[Any]) -> Any:
    """Mean of the statistics of several batches, pytrees of arrays.

    Raises:
      ValueError: without batches.
    """
    total, count = None, 0
    for statistics in found:
        total = statistics if total is None else jax.tree.map(jnp.add, total, statistics)
        count += 1
    if total is None:
        raise ValueError("statistics of batch normalisation need at least one batch of images")
    return jax.tree.map(lambda leaf: leaf / count, total)


def reestimate_statistics(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[jax.Array],
    *,
    call_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A model's variables with statistics of batch normalisation re-estimated over batches of images.

    For predicted parameters (of `init_like`, say), whose running statistics are still 0 and 1; or after weights were
    averaged.

    Args:
      model: any linen model of one input; a `TargetNetwork` needs a momentum, or it keeps no statistics.
      variables: its parameters, and any other collection.
      batches: images (B, H, W, C), as the model takes them.
      call_kwargs: further arguments of the model's call; what tells it that it does not train is added.

    Returns:
      The variables with a new collection ``batch_stats``; layers that are not called in evaluation keep theirs.

    Raises:
      ValueError: without batches, or for a model without such statistics or with layers of an unknown type.
    """
    arguments = {**evaluation_flags(type(model).__call__), **(call_kwargs or {})}
    run = jax.jit(functools.partial(_statistics_of, model, arguments))
    found = mean_over_batches(run(variables, images) for images in batches)
    if not jax.tree.leaves(found):
        raise ValueError(f"this {type(model).__name__} keeps no statistics of batch normalisation (has it a momentum?)")
    return {**variables, STATISTICS: found}


def _statistics_of(model: nn.Module, arguments: Mapping[str, Any], variables: Any, images: jax.Array) -> Any:
    return with_batch_statistics(model, variables, images, **arguments)[1]

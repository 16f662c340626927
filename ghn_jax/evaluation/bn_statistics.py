"""Batch normalisation by statistics re-estimated over training batches: the second protocol of evaluation."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks import network_plan
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.plan import IMAGES

FlatStats = dict[Path, jax.Array]
"""Means and variances by path."""


@functools.lru_cache(maxsize=4096)
def _layer(layer: nn.Module, train: bool) -> Any:
    """Compiled call of one layer: (params, statistics, inputs) -> (output, statistics of this batch)."""

    def run(params: Any, stats: Any, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        with compiling_for(jax.default_backend()):
            output, changed = layer.apply(variables, *inputs, train=train, mutable=["batch_stats"])
        return output, changed.get("batch_stats", {})

    return jax.jit(run)


@functools.lru_cache(maxsize=4096)
def _initial(layer: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """Structure of a layer's variables for inputs of these shapes."""
    inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return jax.eval_shape(lambda *xs: layer.init(jax.random.key(0), *xs), *inputs)


def _run(
    args: NetworkArgs, params: Mapping[Path, jax.Array], images: jax.Array, stats: FlatStats | None
) -> tuple[jax.Array, FlatStats]:
    """Logits, and the statistics of this batch; given statistics are used, else those of the batch."""
    plan = network_plan(args, momentum=0.0)
    values, found = {IMAGES: images}, {}
    for call in plan.calls:
        inputs = tuple(values[i] for i in call.inputs)
        shapes: dict[Path, Any] = traverse_util.flatten_dict(_initial(call.layer, tuple(x.shape for x in inputs)))
        own = {path[1:]: params[(*call.prefix, *path[1:])] for path in shapes if path[0] == "params"}
        names = [path[1:] for path in shapes if path[0] == "batch_stats"]
        if stats is None:
            given = {name: jnp.zeros(shapes[("batch_stats", *name)].shape) for name in names}
        else:
            given = {name: stats[(*call.prefix, *name)] for name in names}
        program = _layer(call.layer, stats is None and bool(names))
        output, changed = program(traverse_util.unflatten_dict(own), traverse_util.unflatten_dict(given), inputs)
        values[call.output] = output
        found.update({(*call.prefix, *name): leaf for name, leaf in traverse_util.flatten_dict(changed).items()})
    return values[plan.output], found


def estimate_statistics(args: NetworkArgs, params: Mapping[Path, jax.Array], batches: Iterable[jax.Array]) -> FlatStats:
    """Mean over batches of images (B, H, W, 3) of the mean and the unbiased variance at every BN layer.

    Raises:
      ValueError: without batches.
    """
    total: FlatStats = {}
    count = 0
    for images in batches:
        _, found = _run(args, params, images, None)
        total = {path: total[path] + leaf for path, leaf in found.items()} if count else found
        count += 1
    if not count:
        raise ValueError("statistics of batch normalisation need at least one batch of training images")
    return {path: leaf / count for path, leaf in total.items()}


def forward_with_statistics(
    args: NetworkArgs, params: Mapping[Path, jax.Array], images: jax.Array, stats: FlatStats
) -> jax.Array:
    """Logits (B, K) of images (B, H, W, 3), normalised by the given statistics: no image depends on another."""
    return _run(args, params, images, stats)[0]

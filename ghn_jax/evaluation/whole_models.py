"""Evaluation of a model that is no network of cells, compiled in one piece: ResNet-50 of the predefined split."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.zoo.layers import MOMENTUM

STATISTICS = "batch_stats"


@functools.lru_cache(maxsize=4)
def _with_batch_statistics(model: nn.Module) -> Any:
    """Compiled (params, statistics, images) -> (logits, statistics updated by those of the batch)."""
    return jax.jit(
        lambda params, stats, images: model.apply(
            {"params": params, STATISTICS: stats}, images, True, mutable=[STATISTICS]
        )
    )


@functools.lru_cache(maxsize=4)
def _with_given_statistics(model: nn.Module) -> Any:
    """Compiled (params, statistics, images) -> logits."""
    return jax.jit(lambda params, stats, images: model.apply({"params": params, STATISTICS: stats}, images))


def _zero_statistics(model: nn.Module, images: jax.Array) -> Any:
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)[STATISTICS]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def model_logits(
    model: nn.Module, params: Mapping[Path, jax.Array], batches: Iterable[jax.Array], training_images: Iterable[Any]
) -> list[jax.Array]:
    """Logits (B, K) of every batch of images (B, H, W, 3).

    Args:
      model: called as a model of the zoo is, (images, train), with `batch_norm` of the zoo at its default momentum.
      params: its parameters by path.
      batches: images.
      training_images: batches that the (biased) statistics of batch normalisation are averaged over; without any,
        every batch is normalised by its own.
    """
    tree: Any = traverse_util.unflatten_dict(dict(params))
    batches = list(batches)
    zero = _zero_statistics(model, batches[0])
    run = _with_batch_statistics(model)
    found = [run(tree, zero, images)[1][STATISTICS] for images in training_images]
    if not found:
        return [run(tree, zero, images)[0] for images in batches]
    # Running statistics that start from zero hold a share of those of the batch.
    stats = jax.tree.map(lambda *leaves: sum(leaves) / ((1 - MOMENTUM) * len(leaves)), *found)
    return [_with_given_statistics(model)(tree, stats, images) for images in batches]

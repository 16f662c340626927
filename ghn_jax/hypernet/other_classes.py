"""A trained hypernetwork for a task of other classes."""

from typing import Any

import jax
import jax.numpy as jnp

from ghn_jax.hypernet.checkpoints.own import PretrainedGHN
from ghn_jax.hypernet.encoders.node_features import channel_sizes
from ghn_jax.hypernet.ghn import GHN, init_ghn


def with_classes(pretrained: PretrainedGHN, num_classes: int, key: jax.Array) -> PretrainedGHN:
    """The hypernetwork for networks of `num_classes` classes: to train on from there.

    What decodes classifiers has an output for each class and is new. So is the embedding of a tensor that is as wide as
    there are classes, unless that width is listed anyway. All else is kept; with the same number of classes everything
    is.

    Args:
      pretrained: trained on any number of classes.
      num_classes: K of the new task.
      key: of what is new.
    """
    config = pretrained.config.replace(num_classes=num_classes)
    if config == pretrained.config:
        return pretrained
    ghn = GHN(config)
    more = tuple(getattr(config.encoder, "more_channels", ()))
    before, now = (channel_sizes(classes, more) for classes in (pretrained.config.num_classes, num_classes))
    listed = [(place, before.index(size)) for place, size in enumerate(now) if size in before]
    rows, own = (jnp.array([*places, -1]) for places in zip(*listed, strict=True))  # the last is that of no shape

    def carried_over(path: tuple[Any, ...], new: jax.Array, old: jax.Array) -> jax.Array:
        if path[-1].key == "embed_channel":
            return new.at[rows].set(jnp.asarray(old)[own])
        return jnp.asarray(old) if old.shape == new.shape else new

    variables = jax.tree_util.tree_map_with_path(carried_over, init_ghn(ghn, key), pretrained.variables)
    return PretrainedGHN(ghn, variables)

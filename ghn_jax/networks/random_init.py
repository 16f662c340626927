"""Random initialisation of a network from its graph: what predicted parameters are compared with."""

import math

import jax
import jax.numpy as jnp

from ghn_jax.graphs import ArchGraph, Role
from ghn_jax.graphs.param_spec import Path

POSITION_STD = 0.02


def he_initialisation(graph: ArchGraph, key: jax.Array) -> dict[Path, jax.Array]:
    """Parameters of a network as training from scratch would start (He et al., 2015).

    Convolutions and inner linear layers are normal with variance 2 / fan-in, the classifier with 1 / fan-in, norm
    weights 1, biases 0, position tables normal with deviation 0.02.
    """
    params: dict[Path, jax.Array] = {}
    for place, spec in enumerate(graph.params):
        own = jax.random.fold_in(key, place)
        _, fan_in, height, width = spec.canonical_shape
        if spec.role in (Role.KERNEL, Role.CLASSIFIER_KERNEL):
            gain = 2 if spec.role is Role.KERNEL else 1
            std = math.sqrt(gain / (fan_in * height * width))
            params[spec.path] = std * jax.random.normal(own, spec.shape)
        elif spec.role is Role.POSITION:
            params[spec.path] = POSITION_STD * jax.random.normal(own, spec.shape)
        else:
            params[spec.path] = jnp.full(spec.shape, float(spec.role is Role.SCALE))
    return params

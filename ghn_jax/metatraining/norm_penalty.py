"""GHN-3's penalty on the norms of what it predicts (docs/method.md, section 17): of tensors, not of their squares."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import Path

_SMALLEST = 1e-30
"""Norms below it have no direction."""


def add_norm_penalty(
    cotangents: Mapping[Path, jax.Array], predicted: Mapping[Path, jax.Array], factor: float, total: jax.Array
) -> tuple[dict[Path, jax.Array], jax.Array]:
    """Adds the penalty's gradient to that of one network's loss, tensor by tensor, since each shape is a program.

    Args:
      cotangents: gradient of the network's loss for its parameters.
      predicted: the parameters; those without a cotangent are penalised too.
      factor: of the sum of Frobenius norms.
      total: () penalty of other networks.

    Returns:
      Gradient with the penalty's, and `total` with the network's penalty.
    """
    found = {}
    for path, tensor in predicted.items():
        cotangent = cotangents.get(path)
        cotangent = jnp.zeros_like(tensor) if cotangent is None else cotangent
        found[path], total = _penalise(cotangent, tensor, factor, total)
    return found, total


def warm_norm_penalty(shapes: Iterable[tuple[int, ...]], like: jax.Array) -> None:
    """Compiles what tensors of these shapes need, on the device of a scalar."""
    for shape in shapes:
        zeros = jnp.zeros(shape, like.dtype, device=like.sharding)
        _penalise(zeros, zeros, 0.0, like)


@jax.jit
def _penalise(cotangent: jax.Array, tensor: jax.Array, factor: float, total: jax.Array) -> tuple[jax.Array, jax.Array]:
    norm = jnp.linalg.norm(tensor.reshape(-1))
    return cotangent + factor * tensor / jnp.maximum(norm, _SMALLEST), total + factor * norm

"""Predicted tensors told apart before fine-tuning: noise, and orthogonal re-initialisation (Knyazev, arXiv 2207.10049).

What a hypernetwork decodes is tiled from slabs, so that rows of a large tensor repeat, get equal gradients, and never
part.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec
from ghn_jax.graphs.param_spec import KERNEL_ROLES, Path

MOST_ROWS = 8_192
"""Rows of a tensor whose correlations are computed: they take 4 bytes a pair."""


def reinitialise(
    graph: ArchGraph,
    params: Mapping[Path, jax.Array],
    key: jax.Array,
    *,
    noise: float = 3e-5,
    orthogonal: bool = False,
    first: int = 1,
) -> dict[Path, jax.Array]:
    """Changes weights of rank 2 or more; norms, biases and the last such weight (the classifier) stay.

    1. Noise, normal with the deviation `noise` times `correlation_std` of the tensor, is added to every entry.
    2. With `orthogonal`, the tensor becomes orthonormal (`orthonormal`), without a gain.

    Position tables count as weights. A leaf that holds several tensors (`ParamSpec.index`) is left as it is.

    Args:
      graph: of the network; its order of tensors is that in which they are numbered from 1.
      params: weights by path.
      key: of the noise.
      noise: factor of the deviation; 0 adds none.
      orthogonal: whether to make tensors orthonormal.
      first: number of the first tensor that is changed.
    """
    if noise < 0 or first < 1:
        raise ValueError(f"noise must not be negative and first at least 1, got {noise} and {first}")
    changed = dict(params)
    weights = [spec for spec in graph.params if spec.role in KERNEL_ROLES and not spec.index]
    for number, spec in enumerate(weights[:-1], 1):
        if number < first or spec.path not in params:
            continue
        tensor = params[spec.path]
        if noise:
            deviation = noise * correlation_std(as_matrix(tensor, spec))
            tensor = tensor + deviation * jax.random.normal(jax.random.fold_in(key, number), tensor.shape)
        if orthogonal:
            tensor = from_matrix(orthonormal(as_matrix(tensor, spec)), spec)
        changed[spec.path] = tensor.astype(params[spec.path].dtype)
    return changed


def as_matrix(tensor: jax.Array, spec: ParamSpec) -> jax.Array:
    """A tensor as (out, in x height x width), in the order of the canonical shape."""
    order = _order(spec.axes)
    out = math.prod(size for letter, size in zip(spec.axes, spec.shape, strict=True) if letter == "O")
    return tensor.transpose(order).reshape(out, -1)


def from_matrix(matrix: jax.Array, spec: ParamSpec) -> jax.Array:
    """The inverse of `as_matrix`."""
    order = _order(spec.axes)
    shape = [spec.shape[axis] for axis in order]
    return matrix.reshape(shape).transpose(np.argsort(order))


def _order(axes: str) -> tuple[int, ...]:
    return tuple(axis for letter in "OIHW" for axis, found in enumerate(axes) if found == letter)


@jax.jit
def correlation_std(matrix: jax.Array) -> jax.Array:
    """Unbiased deviation of all entries of the correlation matrix of the rows; of the columns where they are more.

    Rows without variance correlate with nothing: their entries are left out. A matrix of more than `MOST_ROWS` rows is
    represented by rows evenly spread.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    count = tall.shape[0]
    if count > MOST_ROWS:
        tall = tall[np.linspace(0, count - 1, MOST_ROWS).astype(int)]
    centred = tall - tall.mean(axis=1, keepdims=True)
    norms = jnp.linalg.norm(centred, axis=1, keepdims=True)
    usable = norms[:, 0] > 0
    unit = centred / jnp.where(norms > 0, norms, 1)
    correlations = jnp.clip(unit @ unit.T, -1, 1)
    pairs = usable[:, None] & usable[None, :]
    total = jnp.maximum(pairs.sum(), 2)
    mean = jnp.sum(correlations, where=pairs) / total
    return jnp.sqrt(jnp.sum((correlations - mean) ** 2, where=pairs) / (total - 1))


@jax.jit
def orthonormal(matrix: jax.Array) -> jax.Array:
    """Orthonormal columns (rows, if there are fewer rows): Q of the reduced QR decomposition, with the signs of R."""
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = jnp.linalg.qr(matrix.T if wide else matrix)
    signed = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]
    return signed.T if wide else signed

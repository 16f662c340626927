"""Random initialisation of a network from its graph: what predicted parameters are compared with.

Two rules go by the name of He. `he_initialisation` is that of the paper by He et al.; `torch_initialisation` is what
PyTorch's layers do on their own, whose weights are smaller by a factor of sqrt(6) = 2.45. The release of GHN-2 trains
its baselines from the second and calls it He's: a comparison has to say which one it used.
"""

import functools
import math
import types
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Role
from ghn_jax.graphs.param_spec import Path, stack_leaf

POSITION_STD = 0.02

RandomInit = Callable[[ArchGraph, jax.Array], dict[Path, jax.Array]]
"""(graph, key) -> parameters by path."""


def he_initialisation(graph: ArchGraph, key: jax.Array) -> dict[Path, jax.Array]:
    """Parameters by the rule of He et al. (2015).

    Convolutions and inner linear layers are normal with variance 2 / fan-in, the classifier with 1 / fan-in, norm
    weights 1, biases 0, position tables normal with deviation 0.02.

    Raises:
      ValueError: for a stacked leaf that misses one of its tensors.
    """
    return _initialise(graph, key, _he)


def torch_initialisation(graph: ArchGraph, key: jax.Array) -> dict[Path, jax.Array]:
    """Parameters by PyTorch's own rule, which the release trains its DeepNets-1M baselines from.

    Weights and biases of convolutions and linear layers are uniform between -1 / sqrt(fan-in) and 1 / sqrt(fan-in) of
    the layer, norm weights 1, their biases 0, position tables normal with deviation 1. (torchvision's ResNet-50 has a
    rule of its own, normal with variance 2 / fan-out, which this is not.)

    Raises:
      ValueError: for a bias that follows no weight, or a stacked leaf that misses one of its tensors.
    """
    return _initialise(graph, key, functools.partial(_torch, graph))


RANDOM_INITS: Mapping[str, RandomInit] = types.MappingProxyType(
    {"he": he_initialisation, "torch": torch_initialisation}
)
"""Rules by the names that options give them."""


def _initialise(
    graph: ArchGraph, key: jax.Array, draw: Callable[[ParamSpec, jax.Array], jax.Array]
) -> dict[Path, jax.Array]:
    """One tensor for every spec, those of a stacked leaf put together."""
    tensors: dict[Path, dict[tuple[int, ...], jax.Array]] = {}
    for place, spec in enumerate(graph.params):
        tensors.setdefault(spec.path, {})[spec.index] = draw(spec, jax.random.fold_in(key, place))
    return {
        path: stack_leaf(parts, f"parameter {'/'.join(path)!r} of architecture {graph.name!r}")
        for path, parts in tensors.items()
    }


def _he(spec: ParamSpec, key: jax.Array) -> jax.Array:
    if spec.role in (Role.KERNEL, Role.CLASSIFIER_KERNEL):
        gain = 2 if spec.role is Role.KERNEL else 1
        return math.sqrt(gain / math.prod(spec.canonical_shape[1:])) * jax.random.normal(key, spec.shape)
    if spec.role is Role.POSITION:
        return POSITION_STD * jax.random.normal(key, spec.shape)
    return jnp.full(spec.shape, float(spec.role is Role.SCALE))


def _torch(graph: ArchGraph, spec: ParamSpec, key: jax.Array) -> jax.Array:
    if spec.role is Role.POSITION:
        return jax.random.normal(key, spec.shape)
    if spec.role in (Role.SCALE, Role.NORM_BIAS):
        return jnp.full(spec.shape, float(spec.role is Role.SCALE))
    if spec.role in (Role.BIAS, Role.CLASSIFIER_BIAS):
        fan_in = _fan_in_before(graph, spec)
    else:
        fan_in = math.prod(spec.canonical_shape[1:])
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, spec.shape, minval=-bound, maxval=bound)


def _fan_in_before(graph: ArchGraph, spec: ParamSpec) -> int:
    """Fan-in of the layer whose bias this is: that of the weight in front of its node."""
    before = graph.edges[graph.edges[:, 1] == spec.node, 0]
    fan_in = int(np.prod(graph.node_shapes[before[0], 1:])) if len(before) == 1 else 0
    if not fan_in:
        raise ValueError(f"parameter {spec.name!r} of architecture {graph.name!r}: its node follows no weight")
    return fan_in

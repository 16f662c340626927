"""Starts: what the weights of a network are before its first update, by name.

A start is a pure function; a new one is a function with `@start("name")` above it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax

from ghn_jax.graphs import ArchGraph, ParamSpec, Role
from ghn_jax.graphs.param_spec import KERNEL_ROLES, Path
from ghn_jax.hypernet import PretrainedGHN, predict_params
from ghn_jax.hypernet.grouping import CLASSIFIER_ROLES, prepare
from ghn_jax.networks.random_init import he_initialisation, torch_initialisation
from ghn_jax.training.reinitialise import from_matrix, orthonormal, reinitialise

Params = dict[Path, jax.Array]
"""Weights of a network by path."""

Gradient = Callable[[Params], tuple[jax.Array, Params]]
"""Weights -> loss () of some training batch and its gradient."""


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What a start may use beside the graph and a key.

    Attributes:
      ghn: a hypernetwork; starts that predict need one.
      noise: factor of the noise of `predicted+noise` and `predicted+orth` (`reinitialise`).
      first: number of the first tensor that those two change.
      gradient: for starts that look at images (`gradinit`).
    """

    ghn: PretrainedGHN | None = None
    noise: float = 3e-5
    first: int = 1
    gradient: Gradient | None = None


Start = Callable[[ArchGraph, jax.Array, Given], Params]
"""(graph, key, what else there is) -> weights, one array for each path of the graph."""

STARTS: dict[str, Start] = {}
"""All starts by name."""


def start(name: str) -> Callable[[Start], Start]:
    """Registers a start.

    Raises:
      ValueError: for a name that is taken.
    """

    def register(function: Start) -> Start:
        if name in STARTS:
            raise ValueError(f"there is a start {name!r} already")
        STARTS[name] = function
        return function

    return register


def start_params(name: str, graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """Weights of a network by the start of a name.

    Raises:
      ValueError: for an unknown name, or a start that lacks what it needs.
    """
    if name not in STARTS:
        raise ValueError(f"unknown start {name!r}: choose one of {', '.join(STARTS)}")
    return STARTS[name](graph, key, given)


@start("he")
def he(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """As He et al. (2015): normal with variance 2 / fan-in."""
    return he_initialisation(graph, key)


@start("torch")
def torch(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """PyTorch's own rule: uniform with variance 1 / (3 fan-in)."""
    return torch_initialisation(graph, key)


@start("orthogonal")
def orthogonal(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """Orthonormal weights times sqrt(2) (Saxe et al., 2014), the classifier's times 1; everything else as `he`.

    A stacked leaf, several tensors in one, is as in `he`.
    """
    params = he_initialisation(graph, key)
    for place, spec in enumerate(graph.params):
        if spec.role not in (Role.KERNEL, Role.CLASSIFIER_KERNEL) or spec.index:
            continue
        out, *rest = spec.canonical_shape
        normal = jax.random.normal(jax.random.fold_in(key, place), (out, math.prod(rest)))
        gain = math.sqrt(2) if spec.role is Role.KERNEL else 1.0
        params[spec.path] = gain * from_matrix(orthonormal(normal), spec)
    return params


@start("predicted")
def predicted(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """As the hypernetwork predicts; the classifier of another number of classes than its own as `he`."""
    ghn = _ghn(given, "predicted")
    classifier = graph.num_classes == ghn.config.num_classes
    (found,) = predict_params(ghn.ghn, ghn.variables, prepare(ghn.config, [graph], classifier=classifier))
    if classifier:
        return found
    random = he_initialisation(graph, key)
    heads = {spec.path for spec in graph.params if spec.role in CLASSIFIER_ROLES}
    return {path: random[path] if path in heads else found[path] for path in random}


@start("predicted+noise")
def predicted_noise(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """Predicted, with noise that tells copies apart (`reinitialise`)."""
    params = predicted(graph, key, given)
    return reinitialise(graph, params, key, noise=given.noise, first=given.first)


@start("predicted+orth")
def predicted_orth(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """Predicted, with noise, then orthonormal (`reinitialise`)."""
    params = predicted(graph, key, given)
    return reinitialise(graph, params, key, noise=given.noise, orthogonal=True, first=given.first)


def _ghn(given: Given, name: str) -> PretrainedGHN:
    if given.ghn is None:
        raise ValueError(f"the start {name!r} needs a hypernetwork (--ghn)")
    return given.ghn


def kernels(graph: ArchGraph, params: Mapping[Path, jax.Array]) -> list[ParamSpec]:
    """Weights of rank 2 or more of a network that are leaves of their own."""
    return [spec for spec in graph.params if spec.role in KERNEL_ROLES and not spec.index and spec.path in params]

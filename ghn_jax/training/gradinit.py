"""GradInit: scales of a network's weights learned so that its first update helps most (Zhu et al., NeurIPS 2021).

Made for networks without normalisation, which start badly otherwise. Second derivatives, times a vector, come from
differences of gradients, so that a network needs no program of its own.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.training.starts import Given, Gradient, Params, he, kernels, start

STEPS = 40
"""Updates of the scales; each costs three gradients."""

RATE, LOWEST = 0.05, 0.05
"""Step of the logarithm of a scale, and the least scale."""

NORM_LIMIT, FIRST_RATE = 1.0, 0.1
"""Largest norm of the gradient that a start should have (gamma), and the rate of the update looked ahead (eta)."""

DIFFERENCE = 1e-3
"""Length of the step between two gradients, in units of the weights' norm."""


@start("gradinit")
def gradinit(graph: ArchGraph, key: jax.Array, given: Given) -> Params:
    """He's weights, each of rank 2 or more times a learned scale."""
    if given.gradient is None:
        raise ValueError("the start 'gradinit' looks at training images: it needs their gradient")
    return learn_scales(graph, he(graph, key, given), given.gradient)


def learn_scales(graph: ArchGraph, params: Params, gradient: Gradient, steps: int = STEPS) -> Params:
    """Weights times scales s by Algorithm 1 of the paper, with one batch and SGD as the optimiser looked ahead.

    While the gradient's norm is above gamma, its square is made smaller; otherwise the loss after one step of SGD is.
    The sign of a scale's derivative alone is used.

    Args:
      graph: of the network.
      params: weights by path.
      gradient: weights -> loss and gradient of a training batch.
      steps: updates of the scales.
    """
    chosen = [spec.path for spec in kernels(graph, params)]
    scales = dict.fromkeys(chosen, 1.0)
    for _ in range(steps):
        current = scaled(params, scales)
        _, slope = gradient(current)
        norm = float(_norm(slope))
        if not norm < float("inf"):
            scales = {path: max(LOWEST, 0.5 * scale) for path, scale in scales.items()}
            continue
        if norm > NORM_LIMIT:
            derivative = _curvature(gradient, current, slope, slope)
        else:
            ahead = {path: leaf - FIRST_RATE * slope[path] for path, leaf in current.items()}
            _, there = gradient(ahead)
            bent = _curvature(gradient, current, there, slope)
            derivative = {path: there[path] - FIRST_RATE * bent[path] for path in current}
        for path in chosen:
            along = float(_dot(params[path], derivative[path]))
            scales[path] = max(LOWEST, scales[path] * (1 - RATE * ((along > 0) - (along < 0))))
    return scaled(params, scales)


def scaled(params: Mapping[Path, jax.Array], scales: Mapping[Path, float]) -> Params:
    """Weights times their scales; those without one stay."""
    return {path: leaf * jnp.float32(scales[path]) if path in scales else leaf for path, leaf in params.items()}


def _curvature(gradient: Gradient, params: Params, along: Params, slope: Params) -> Params:
    """The loss's second derivative times the vector `along`, by a difference of gradients."""
    length = float(_norm(along))
    if length == 0:
        return {path: jnp.zeros_like(leaf) for path, leaf in params.items()}
    step = DIFFERENCE * max(float(_norm(params)), 1.0) / length
    _, moved = gradient({path: leaf + step * along[path] for path, leaf in params.items()})
    return {path: (moved[path] - slope[path]) / step for path in params}


def _norm(tree: Mapping[Path, jax.Array]) -> jax.Array:
    return jnp.sqrt(functools.reduce(jnp.add, (_dot(leaf, leaf) for leaf in tree.values())))


@jax.jit
def _dot(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.vdot(one, other)

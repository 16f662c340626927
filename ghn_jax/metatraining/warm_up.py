"""The hypernetwork's share of compiling ahead."""

import threading
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ghn_jax.graphs import ArchGraph
from ghn_jax.hypernet import GHN, PreparedBatch, compile_for, prepare
from ghn_jax.runs.devices import Device


class PredictionWarmUp:
    """Prepares graphs for prediction, and predicts once beforehand where that compiles anything new.

    Args:
      ghn: the hypernetwork.
      params: its weights, or anything of their shapes.
      device: where it runs.
      cotangents: device that the networks' gradients are committed to; None if to none.
    """

    def __init__(self, ghn: GHN, params: Any, device: Device, cotangents: Device | None = None) -> None:
        self._ghn, self._cotangents = ghn, cotangents
        self._zeros = zeros_like(params, device)
        self._seen: set[Hashable] = set()
        self._ready: dict[tuple[int, ...], PreparedBatch] = {}
        self._lock = threading.Lock()

    def warm(self, graphs: Sequence[ArchGraph]) -> None:
        """Makes graphs ready for `take`; safe in background threads."""
        prepared = prepare(self._ghn.config, graphs)
        needs = prepared.programs()
        with self._lock:
            is_new = not needs <= self._seen
            self._seen |= needs
        if is_new:
            compile_for(self._ghn, {"params": self._zeros}, prepared, self._cotangents)
        with self._lock:
            self._ready[_identity(graphs)] = prepared

    def take(self, graphs: Sequence[ArchGraph]) -> PreparedBatch:
        """What `warm` prepared for the same graphs, or the same made now."""
        with self._lock:
            ready = self._ready.pop(_identity(graphs), None)
        return prepare(self._ghn.config, graphs) if ready is None else ready


def zeros_like(tree: Any, device: Device) -> Any:
    """Zeros of the shapes and types of a pytree, made on the device that they are for."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=device), tree)


def _identity(graphs: Sequence[ArchGraph]) -> tuple[int, ...]:
    """Valid as long as the graphs live; those waiting in a `PredictionWarmUp` are kept by their prepared batch."""
    return tuple(id(graph) for graph in graphs)

"""Graph hypernetworks in JAX: parameters for unseen architectures in one forward pass."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghn_jax.graphs import ArchGraph as ArchGraph
    from ghn_jax.graphs.tracing import trace as trace
    from ghn_jax.hypernet import GHN as GHN
    from ghn_jax.hypernet import GHNConfig as GHNConfig
    from ghn_jax.hypernet import embed as embed
    from ghn_jax.hypernet import load_ghn as load_ghn
    from ghn_jax.hypernet import predict as predict
    from ghn_jax.initialising import init_like as init_like

# Loaded at first use, so that workers which only draw architectures do not start JAX.
_ROOMS = {
    "ArchGraph": "graphs",
    "GHN": "hypernet",
    "GHNConfig": "hypernet",
    "embed": "hypernet",
    "init_like": "initialising",
    "load_ghn": "hypernet",
    "predict": "hypernet",
    "trace": "graphs.tracing",
}

__all__ = ["ArchGraph", "GHN", "GHNConfig", "embed", "init_like", "load_ghn", "predict", "trace"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)

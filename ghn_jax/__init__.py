"""Graph hypernetworks in JAX: parameters for unseen architectures in one forward pass."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghn_jax.advising import advise
    from ghn_jax.deepnets import sample_architecture
    from ghn_jax.evaluation import evaluate
    from ghn_jax.graphs import ArchGraph
    from ghn_jax.graphs.tracing import trace
    from ghn_jax.hypernet import GHN, GHNConfig, embed, load_ghn, predict
    from ghn_jax.initialising import init_like
    from ghn_jax.metatraining import train
    from ghn_jax.networks import TargetNetwork, zoo

__version__ = "0.1.0"

# Loaded at first use, so that workers which only draw architectures do not start JAX.
_MODULES = {
    "ArchGraph": "graphs",
    "GHN": "hypernet",
    "GHNConfig": "hypernet",
    "TargetNetwork": "networks",
    "advise": "advising",
    "embed": "hypernet",
    "evaluate": "evaluation",
    "init_like": "initialising",
    "load_ghn": "hypernet",
    "predict": "hypernet",
    "sample_architecture": "deepnets",
    "trace": "graphs.tracing",
    "train": "metatraining",
    "zoo": "networks.zoo",
}

__all__ = [
    "ArchGraph",
    "GHN",
    "GHNConfig",
    "TargetNetwork",
    "__version__",
    "advise",
    "embed",
    "evaluate",
    "init_like",
    "load_ghn",
    "predict",
    "sample_architecture",
    "trace",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return module if name == "zoo" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

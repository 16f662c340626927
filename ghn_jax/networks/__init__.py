"""Target networks: layers, DeepNets-1M networks, model zoo, the layer-by-layer runner."""

from ghn_jax.networks.compilation_cache import enable_compilation_cache
from ghn_jax.networks.plan import Plan, network_plan
from ghn_jax.networks.runner import Runner
from ghn_jax.networks.target import Backbone, TargetNetwork

__all__ = [
    "Backbone",
    "Plan",
    "Runner",
    "TargetNetwork",
    "enable_compilation_cache",
    "network_plan",
]

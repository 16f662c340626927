"""Target networks: layers, DeepNets-1M networks, model zoo, the layer-by-layer runner."""

from ghn_jax.networks.compilation_cache import enable_compilation_cache as enable_compilation_cache
from ghn_jax.networks.plan import Plan as Plan
from ghn_jax.networks.plan import network_plan as network_plan
from ghn_jax.networks.runner import Runner as Runner
from ghn_jax.networks.target import TargetNetwork as TargetNetwork

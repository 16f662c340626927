"""Target networks: layers, plans, and two ways to run them."""

from ghn_jax.networks.plan import Plan as Plan
from ghn_jax.networks.plan import network_plan as network_plan
from ghn_jax.networks.target import TargetNetwork as TargetNetwork

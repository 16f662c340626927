"""Meta-batches: several architectures that one update learns from."""

import dataclasses
import functools

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.graphs import ArchGraph
from ghn_jax.networks.plan import Plan, network_plan


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
    """One architecture: arguments, graph (what the GHN reads) and plan (what runs)."""

    args: NetworkArgs
    graph: ArchGraph

    @property
    def name(self) -> str:
        """Name of the graph, used in errors and reports."""
        return self.graph.name

    @functools.cached_property
    def plan(self) -> Plan:
        """Layer calls, with batch normalisation by the statistics of the batch."""
        return network_plan(self.args)


@dataclasses.dataclass(frozen=True, eq=False)
class MetaBatch:
    """G architectures, and the position of the architecture source after them."""

    architectures: tuple[Architecture, ...]
    position: int

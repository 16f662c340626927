"""Tracing: the architecture graph of any JAX model, read from its jaxpr.

Every value of the jaxpr is a constant, a parameter (with the leaf's axes that its axes came from) or data (with the
nodes it was computed from). `walk` goes through the equations on these three; rules create a node where data meet a
parameter in one of the ways that the vocabulary knows, and contract everything else. `finish` prunes the result.
"""

from ghn_jax.graphs.tracing.trace import trace

__all__ = ["trace"]

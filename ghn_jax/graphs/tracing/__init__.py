"""Tracing: the architecture graph of any JAX model, read from its jaxpr."""

from ghn_jax.graphs.tracing.trace import trace as trace

"""Architectures as graphs: vocabulary, specs of predicted tensors, padded batches, pictures, tracing of models."""

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.draw import draw
from ghn_jax.graphs.param_spec import KeptParam, ParamSpec, Role
from ghn_jax.graphs.vocabulary import Primitive

__all__ = ["ArchGraph", "KeptParam", "ParamSpec", "Primitive", "Role", "draw"]

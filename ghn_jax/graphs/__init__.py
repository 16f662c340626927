"""Architectures as graphs: vocabulary, specs of predicted tensors, padded batches."""

from ghn_jax.graphs.arch_graph import ArchGraph as ArchGraph
from ghn_jax.graphs.draw import draw as draw
from ghn_jax.graphs.param_spec import ParamSpec as ParamSpec
from ghn_jax.graphs.param_spec import Role as Role
from ghn_jax.graphs.vocabulary import Primitive as Primitive

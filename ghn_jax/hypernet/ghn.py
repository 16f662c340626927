"""`GHN`: an encoder and a decoder as one hypernetwork, whose methods are pure functions of arrays."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.batching import GraphBatch, batch_graphs
from ghn_jax.graphs.param_spec import ParamSpec, Role
from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.protocols import Decoder, DecodingKey, Encoder

Variables = Any
"""A pytree {"params": ...} of the hypernetwork's weights, or its gradient."""


@dataclasses.dataclass(frozen=True)
class GHN:
    """Graph hypernetwork: node states, then tensors (paper, Eq. 2). Hashable, so that it keys compiled programs.

    All methods are batched, pure and differentiable. For several devices, compile them with the leading axis (graphs,
    or rows that are decoded) sharded over the mesh.

    Attributes:
      config: encoder, decoder and their sizes.
    """

    config: GHNConfig

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The Flax module from graphs to states."""
        return self.config.encoder.build(self.config)

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The Flax module from states to tensors."""
        return self.config.decoder.build(self.config)

    def embed(self, variables: Variables, batch: GraphBatch) -> jax.Array:
        """States (G, N, D) that are decoded; zeros in padded rows."""
        states = self.encoder.apply(variables, batch)
        return jnp.where(jnp.asarray(batch.node_mask)[..., None], states, 0.0)

    def decode(self, variables: Variables, rows: jax.Array, key: DecodingKey) -> jax.Array:
        """States (B, D) of tensors of one group -> (B, ...), what each is cut from."""
        return self.decoder.apply(variables, rows, key, method="decode")

    def init(self, key: jax.Array) -> Variables:
        """Fresh weights."""
        graph = ArchGraph.build("single input", [Primitive.INPUT], np.zeros((1, 4), np.int32), [], [])
        encoder = self.encoder.init(key, batch_graphs([graph], (2,)))["params"]
        decoder = self.decoder.init(key, jnp.zeros((1, self.config.hid)), method=self._decode_every_role)["params"]
        variables = {"params": {**encoder, **decoder}}
        of_encoder, of_decoder = split_weights(variables)
        if of_encoder.keys() != encoder.keys() or of_decoder.keys() != decoder.keys():
            raise ValueError(
                f"weights of the decoder {self.config.decoder.kind!r} must have names that begin with 'decoder', and "
                f"those of no encoder may: got {', '.join(decoder)} and {', '.join(encoder)}"
            )
        return variables

    def _decode_every_role(self, decoder: Decoder, rows: jax.Array) -> list[jax.Array]:
        """Touches every weight of a decoder."""
        classes = self.config.num_classes
        specs = [
            ParamSpec((role.value,), shape, axes, role, 0)
            for role, shape, axes in (
                (Role.KERNEL, (1, 1, 1, 1), "HWIO"),
                (Role.POSITION, (1, 1, 1, 1), "OHWI"),
                (Role.SCALE, (1,), "O"),
                (Role.NORM_BIAS, (1,), "O"),
                (Role.BIAS, (1,), "O"),
                (Role.CLASSIFIER_KERNEL, (1, classes), "IO"),
                (Role.CLASSIFIER_BIAS, (classes,), "O"),
            )
        ]
        return [decoder.decode(rows, decoder.key(spec)) for spec in specs]


def split_weights(variables: Variables) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of the encoder and of the decoder, by name: all of the decoder's, and no other, begin with "decoder"."""
    params = variables["params"]
    names = {name for name in params if name.startswith("decoder")}
    return {name: params[name] for name in params if name not in names}, {name: params[name] for name in names}


def init_ghn(ghn: GHN, key: jax.Array) -> Variables:
    """Variables {"params": ...} drawn as PyTorch's defaults would be."""
    return jax.jit(ghn.init)(key)

"""Decoders: node states to slabs, of which tensors are cut (paper, Eq. 5; SPEC: decoding).

A slab is (kh, kw, in, out), the layout of Flax kernels, and only its requested corner is computed.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.dense import MLP, Linear, affine

SlabShape = tuple[int, int, int, int]
"""(kh, kw, in, out) of a slab."""


def _repeat_spatial(slab: jax.Array, height: int, width: int) -> jax.Array:
    """Repeats the two axes before the last two as often as a kernel larger than the decoder's needs, then cuts."""
    *batch, rows, columns, _, _ = slab.shape
    if (rows, columns) == (height, width):
        return slab
    repeats = (1,) * len(batch) + (-(-height // rows), -(-width // columns), 1, 1)
    return jnp.tile(slab, repeats)[..., :height, :width, :, :]


class ConvDecoder(nn.Module):
    """Linear layer to (S, S, 4 D), then two pointwise convolutions to in * out channels."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        hid, (rows, columns, size, _) = self.config.hid, self.config.max_shape
        self.fc = Linear(hid, (size, size, 4 * hid))
        self.conv_0 = Linear(4 * hid, (8 * hid,))
        self.conv_2 = Linear(8 * hid, (columns, rows))
        self.class_layer_predictor = Linear(rows, (self.config.num_classes,))

    def __call__(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> (B, kh, kw, in, out), at most max_shape in the last two."""
        height, width, in_size, out_size = shape
        size = self.config.max_shape[2]
        kernel, bias = self.fc.weights()
        rows, columns = min(height, size), min(width, size)
        hidden = affine(states, kernel[:, :rows, :columns], bias[:rows, :columns])
        hidden = nn.relu(self.conv_0(nn.relu(hidden)))
        kernel, bias = self.conv_2.weights()
        slab = affine(hidden, kernel[:, :in_size, :out_size], bias[:in_size, :out_size])
        return _repeat_spatial(slab, height, width)

    def classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> (B, 1, 1, in, K): a slab at 1 x 1, ReLU, and a linear map over its out axis."""
        slab = self(states, (1, 1, in_size, self.config.max_shape[0]))
        return self.class_layer_predictor(nn.relu(slab))


class MLPDecoder(nn.Module):
    """MLP straight to (S, S, in, out) (paper, section 2.3 and the ablation of the decoder)."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        hid, (rows, columns, size, _) = self.config.hid, self.config.max_shape
        self.mlp = MLP(hid, 2 * hid, (size, size, columns, rows), relu_last=False)
        self.class_layer_predictor = Linear(2 * hid, (rows, self.config.num_classes))

    def __call__(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> (B, kh, kw, in, out), at most max_shape in the last two."""
        height, width, in_size, out_size = shape
        size = self.config.max_shape[2]
        kernel, bias = self.mlp.fc_2.weights()
        corner = (slice(min(height, size)), slice(min(width, size)), slice(in_size), slice(out_size))
        hidden = nn.relu(self.mlp.fc_0(states))
        slab = affine(hidden, kernel[(slice(None), *corner)], bias[corner])
        return _repeat_spatial(slab, height, width)

    def classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> (B, 1, 1, in, K): first layer, ReLU, linear."""
        slab = self.class_layer_predictor(nn.relu(self.mlp.fc_0(states)))
        return slab[:, None, None, :in_size]


class VectorDecoder(nn.Module):
    """MLP to (2, max(O, I)): row 0 the weight of a norm layer, row 1 any bias; and the classifier's bias."""

    config: GHNConfig

    def setup(self) -> None:
        """Creates the layers."""
        config = self.config
        self.mlp = MLP(config.hid, 2 * config.hid, (2, config.vector_size), relu_last=False)
        self.bias_class = Linear(config.vector_size, (config.num_classes,))

    def __call__(self, states: jax.Array) -> jax.Array:
        """(B, D) -> (B, 2, max(O, I))."""
        return self.mlp(states)

    def classifier(self, states: jax.Array) -> jax.Array:
        """(B, D) -> (B, 2, K): ReLU and a linear map of both rows (row 1 is the classifier's bias)."""
        return self.bias_class(nn.relu(self.mlp(states)))

"""Transformer block and stem of DeepNets-1M networks."""

import flax.linen as nn
import jax

from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.tokens import linear
from ghn_jax.networks.norms import LayerNorm

HEADS = 8


class Attention(nn.Module):
    """``msa``: pre-norm transformer block on H * W tokens, MLP of the same width with exact GELU."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to the same shape; C must be a multiple of 8."""
        batch, height, width, channels = x.shape
        if channels % HEADS:
            raise ValueError(f"msa: the width must be a multiple of {HEADS} heads, got {channels}; change C")
        tokens = x.reshape(batch, height * width, channels)
        qkv = Linear(3 * channels, use_bias=False, name="to_qkv")(LayerNorm(name="ln1")(tokens))
        mixed = attend(qkv, HEADS)
        tokens = tokens + Linear(channels, name="to_out_0")(mixed)
        hidden = LayerNorm(name="ln2")(tokens)
        tokens = tokens + FeedForward(name="ff")(hidden)
        return tokens.reshape(x.shape)


class FeedForward(nn.Module):
    """Linear, exact GELU, linear, all of one width."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, T, C) to the same shape."""
        hidden = Linear(x.shape[-1], name="net_0")(x)
        return Linear(x.shape[-1], name="net_3")(nn.gelu(hidden, approximate=False))


class Linear(nn.Module):
    """Linear layer of each token."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, T, C) to (B, T, features)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        return linear(x, kernel, bias)


class PositionTable(nn.Module):
    """Learned position table, added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to the same shape."""
        table = self.param("table", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table.astype(x.dtype)

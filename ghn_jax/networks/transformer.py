"""Transformer block and stem of DeepNets-1M networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.norms import LayerNorm

HEADS = 8


class Attention(nn.Module):
    """``msa``: pre-norm transformer block on H * W tokens, MLP of the same width with exact GELU."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """x (B, H, W, C) to the same shape; C must be a multiple of 8."""
        batch, height, width, channels = x.shape
        if channels % HEADS:
            raise ValueError(f"msa: the width must be a multiple of {HEADS} heads, got {channels}; change C")
        tokens = x.reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, use_bias=False, dtype=x.dtype, name="to_qkv")(LayerNorm(name="ln1")(tokens))
        mixed = attend(qkv)
        tokens = tokens + nn.Dense(channels, dtype=x.dtype, name="to_out_0")(mixed)
        hidden = LayerNorm(name="ln2")(tokens)
        tokens = tokens + FeedForward(name="ff")(hidden)
        return tokens.reshape(x.shape)


def attend(qkv: jax.Array) -> jax.Array:
    """Softmax attention of 8 heads: qkv (B, T, 3 C), each part C = (head, dim), to (B, T, C)."""
    batch, count, width = qkv.shape
    dim = width // 3 // HEADS
    query, key, value = jnp.moveaxis(qkv.reshape(batch, count, 3, HEADS, dim), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * dim**-0.5
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, count, HEADS * dim)


class FeedForward(nn.Module):
    """Linear, exact GELU, linear, all of one width."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x (B, T, C) to the same shape."""
        hidden = nn.Dense(x.shape[-1], dtype=x.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=x.dtype, name="net_3")(nn.gelu(hidden, approximate=False))


class PositionTable(nn.Module):
    """Learned position table, added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x (B, H, W, C) to the same shape."""
        table = self.param("table", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table.astype(x.dtype)

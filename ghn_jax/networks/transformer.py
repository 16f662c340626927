"""Transformer block and stem of DeepNets-1M networks."""

import flax.linen as nn
import jax

from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.tokens import gelu_linear, linear, norm_linear
from ghn_jax.networks.norms import EPSILON, LayerNormWeights

Weights = tuple[jax.Array, jax.Array]
"""Scale and bias of a normalisation."""

HEADS = 8


class Attention(nn.Module):
    """``msa``: pre-norm transformer block on H * W tokens, MLP of the same width with exact GELU."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """X (B, H, W, C) to the same shape; C must be a multiple of 8."""
        channels = x.shape[-1]
        if channels % HEADS:
            raise ValueError(f"msa: the width must be a multiple of {HEADS} heads, got {channels}; change C")
        qkv = Linear(3 * channels, use_bias=False, name="to_qkv")(x, LayerNormWeights(name="ln1")(channels))
        x = x + Linear(channels, name="to_out_0")(attend(qkv, HEADS))
        return x + FeedForward(name="ff")(x, LayerNormWeights(name="ln2")(channels))


class FeedForward(nn.Module):
    """Layer normalisation, linear, exact GELU, linear, all of one width."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Weights) -> jax.Array:
        """X (.., C) to the same shape."""
        hidden = Linear(x.shape[-1], name="net_0")(x, norm)
        return Linear(x.shape[-1], gelu=True, name="net_3")(hidden)


class Linear(nn.Module):
    """Linear layer of each token, after a GELU if `gelu`."""

    features: int
    use_bias: bool = True
    gelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, norm: Weights | None = None) -> jax.Array:
        """X (.., C), after a layer normalisation of these weights if there are any, to (.., features)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        if norm is not None:
            return norm_linear(x, *norm, kernel, bias, epsilon=EPSILON)
        return (gelu_linear if self.gelu else linear)(x, kernel, bias)


class PositionTable(nn.Module):
    """Learned position table, added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X (B, H, W, C) to the same shape."""
        table = self.param("table", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table.astype(x.dtype)

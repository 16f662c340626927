"""Normalisation layers of target networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.batch_norm import batch_norm

EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last.

    With `momentum` None, the statistics are always those of the batch and nothing is stored: meta-training and
    evaluation of predicted parameters (paper, Sec. 4.1). With a momentum the collection ``batch_stats`` holds running
    statistics, updated as ``momentum * old + (1 - momentum) * batch`` in training (unbiased variance) and used
    otherwise.
    """

    momentum: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalises x (B, H, W, C)."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        if self.momentum is None:
            return batch_norm(x, scale, bias, EPSILON)[0]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        var = self.variable("batch_stats", "var", jnp.ones, (width,))
        if not train:
            factor = jax.lax.rsqrt(var.value + EPSILON) * scale
            shift = bias - mean.value * factor
            return x * factor.reshape(1, 1, 1, -1).astype(x.dtype) + shift.reshape(1, 1, 1, -1).astype(x.dtype)
        out, batch_mean, batch_var = batch_norm(x, scale, bias, EPSILON)
        if not self.is_initializing():
            count = x.size // width
            unbiased = batch_var * (count / max(count - 1, 1))
            mean.value = self.momentum * mean.value + (1 - self.momentum) * jax.lax.stop_gradient(batch_mean)
            var.value = self.momentum * var.value + (1 - self.momentum) * jax.lax.stop_gradient(unbiased)
        return out


class NormWeights(nn.Module):
    """Scale and bias of a normalisation, which the layer behind it applies."""

    @nn.compact
    def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
        """Scale and bias (C,) for `width` channels C."""
        scale = self.param("scale", nn.initializers.ones, (width,))
        return scale, self.param("bias", nn.initializers.zeros, (width,))

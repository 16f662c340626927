"""Linear layers and embeddings initialised as PyTorch's defaults, so that training behaves like the release's."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer


def fan_in_uniform(fan_in: int) -> Initializer:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default for weights and biases of linear layers."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """Linear map of the last axis onto `features`, which may be several axes: kernel (D, *features).

    Callers that need only a part of the output slice `weights` themselves.
    """

    in_features: int
    features: tuple[int, ...]

    def setup(self) -> None:
        """Creates the layers."""
        init = fan_in_uniform(self.in_features)
        self.kernel = self.param("kernel", init, (self.in_features, *self.features))
        self.bias = self.param("bias", init, self.features)

    def weights(self) -> tuple[jax.Array, jax.Array]:
        """Kernel (D, *features) and bias (*features)."""
        return self.kernel, self.bias

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(..., D) -> (..., *features)."""
        return affine(inputs, self.kernel, self.bias)


def affine(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """(..., D) by (D, *features) plus (*features) -> (..., *features), as one matrix product."""
    features = bias.shape
    rows = inputs.reshape(-1, inputs.shape[-1])
    output = rows @ kernel.reshape(kernel.shape[0], -1) + bias.reshape(1, -1)
    return output.reshape(*inputs.shape[:-1], *features)


class MLP(nn.Module):
    """Two linear layers (`fc_0`, `fc_2` as in the release); ReLU between, and after the last if `relu_last`."""

    in_features: int
    hidden: int
    features: tuple[int, ...]
    relu_last: bool = True

    def setup(self) -> None:
        """Creates the layers."""
        self.fc_0 = Linear(self.in_features, (self.hidden,))
        self.fc_2 = Linear(self.hidden, self.features)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(..., D) -> (..., *features)."""
        output = self.fc_2(nn.relu(self.fc_0(inputs)))
        return nn.relu(output) if self.relu_last else output


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, eps 1e-5, in the two-pass form."""

    features: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        centred = inputs - inputs.mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
        ones = (1,) * (inputs.ndim - 1)
        return normed * scale.reshape(*ones, -1) + bias.reshape(*ones, -1)

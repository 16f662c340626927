"""Linear layers, initialised as PyTorch's defaults are, so that training behaves like the release's.

All products of the hypernetwork are in full float32 (`PRECISION`): it is small beside the networks, and the reduced
precision that GPUs and TPUs otherwise use would show in every predicted weight.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

PRECISION = jax.lax.Precision.HIGHEST

FEW_ROWS = 4
"""That one row is padded to before it is multiplied by a matrix."""


def fan_in_uniform(fan_in: int) -> Initializer:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default for weights and biases of linear layers."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def small_start(in_features: int) -> tuple[Initializer, Initializer]:
    """Initialisers of a last layer of GHN-3: a fifth of PyTorch's weights, biases 0 (docs/method.md, section 17)."""
    uniform = fan_in_uniform(in_features)
    return (lambda *args: uniform(*args) / 5), nn.initializers.zeros


def dense(
    in_features: int, features: tuple[int, ...] | int, *, small: bool = False, bias: bool = True, dtype: Any = None
) -> nn.DenseGeneral:
    """A layer (..., in) -> (..., *features) that is always used whole.

    Args:
      in_features: length of the last axis of the input.
      features: axes that take its place.
      small: whether it starts as `small_start` says.
      bias: whether it has one.
      dtype: type of its product; None for that of input and weights.
    """
    kernel_init, bias_init = _initialisers(in_features, small)
    return nn.DenseGeneral(
        features, kernel_init=kernel_init, bias_init=bias_init, use_bias=bias, dtype=dtype, precision=PRECISION
    )


def _initialisers(in_features: int, small: bool) -> tuple[Initializer, Initializer]:
    """Of kernel and bias."""
    if small:
        return small_start(in_features)
    init = fan_in_uniform(in_features)
    return init, init


def layer_norm() -> nn.LayerNorm:
    """LayerNorm over the last axis, eps 1e-5, in the two-pass form."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)


class Linear(nn.Module):
    """A linear layer (D, *features) of which callers take the part that they need; `small` as in `dense`."""

    in_features: int
    features: tuple[int, ...]
    small: bool = False

    def setup(self) -> None:
        """Creates the weights."""
        kernel_init, bias_init = _initialisers(self.in_features, self.small)
        self.kernel = self.param("kernel", kernel_init, (self.in_features, *self.features))
        self.bias = self.param("bias", bias_init, self.features)

    def weights(self) -> tuple[jax.Array, jax.Array]:
        """Kernel (D, *features) and bias (*features)."""
        return self.kernel, self.bias

    def part(self, inputs: jax.Array, *index: slice | int) -> jax.Array:
        """(..., D) -> (..., *features[index]), computing no more than that."""
        return affine(inputs, self.kernel[(slice(None), *index)], self.bias[index])


def affine(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """(..., D) by (D, *features) plus (*features) -> (..., *features), as one matrix product."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    single = len(rows) == 1
    if single:  # XLA's product of one row by a large matrix takes a CPU ten times as long as that of a few
        rows = jnp.concatenate([rows, jnp.zeros((FEW_ROWS - 1, rows.shape[1]), rows.dtype)])
    output = jnp.matmul(rows, kernel.reshape(kernel.shape[0], -1), precision=PRECISION) + bias.reshape(1, -1)
    if single:
        output = output[:1]
    return output.reshape(*inputs.shape[:-1], *bias.shape)


class MLP(nn.Module):
    """Two linear layers, named as in the release: `fc_0` is used whole, `fc_2` may be used in part; ReLU between.

    `small` as in `dense`, of `fc_2`.
    """

    in_features: int
    hidden: int
    features: tuple[int, ...]
    small: bool = False

    def setup(self) -> None:
        """Creates the layers."""
        self.fc_0 = dense(self.in_features, self.hidden)
        self.fc_2 = Linear(self.hidden, self.features, self.small)

    def first(self, inputs: jax.Array) -> jax.Array:
        """(..., D) -> (..., hidden), after the ReLU."""
        return nn.relu(self.fc_0(inputs))

    def __call__(self, inputs: jax.Array, *index: slice | int) -> jax.Array:
        """(..., D) -> (..., *features[index])."""
        return self.fc_2.part(self.first(inputs), *index)

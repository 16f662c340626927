"""Small Flax models that command lines load by name."""

import flax.linen as nn
import jax
from flax import nnx


class Small(nn.Module):
    """A linen model with a layer scale."""

    classes: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=True, name="bn")(nn.Conv(8, (3, 3), name="conv")(x))
        x = x * self.param("gamma", nn.initializers.constant(0.5), (1, 1, 1, 8))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class SmallNnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.head = nnx.Linear(192, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(x.reshape(x.shape[0], -1)))


INSTANCE = Small()

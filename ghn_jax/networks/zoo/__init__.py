"""Models of torchvision in Flax linen, for images of 224 x 224 and of 32 x 32."""

from ghn_jax.networks.zoo.registry import create, names

__all__ = [
    "create",
    "names",
]

"""Vision transformer (Dosovitskiy et al., 2021), base size."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.networks.zoo.layers import conv, layer_norm

_DEPTH, _WIDTH, _HEADS, _HIDDEN = 12, 768, 12, 3072


class SelfAttention(nn.Module):
    """Attention of T tokens among themselves, 12 heads: (B, T, C) -> (B, T, C).

    The fused projection is a linear layer ``in_proj``, where torchvision has the bare tensors ``in_proj_weight`` and
    ``in_proj_bias``.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the projection, without the residual."""
        batch, tokens, width = x.shape
        qkv = nn.Dense(3 * width, name="in_proj")(x).reshape(batch, tokens, 3, _HEADS, width // _HEADS)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bthd,bshd->bhts", query, key) * (width // _HEADS) ** -0.5
        mixed = jnp.einsum("bhts,bshd->bthd", nn.softmax(scores), value)
        return nn.Dense(width, name="out_proj")(mixed.reshape(batch, tokens, width))


class EncoderLayer(nn.Module):
    """Pre-norm transformer block: (B, T, C) -> (B, T, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the block."""
        x = x + SelfAttention(name="self_attention")(layer_norm(x, "ln_1"))
        hidden = nn.gelu(nn.Dense(_HIDDEN, name="mlp_0")(layer_norm(x, "ln_2")), approximate=False)
        return x + nn.Dense(x.shape[-1], name="mlp_3")(hidden)


class Layers(nn.Module):
    """The blocks in a row: (B, T, C) -> (B, T, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the last block."""
        for layer in range(_DEPTH):
            x = EncoderLayer(name=f"encoder_layer_{layer}")(x)
        return x


class Encoder(nn.Module):
    """Position table, blocks, layer norm: (B, T, C) -> (B, T, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalised tokens."""
        table = self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return layer_norm(Layers(name="layers")(x + table), "ln")


class VisionTransformer(nn.Module):
    """ViT-B/16; small images: patches of 4 x 4, so that a 32 x 32 image still has 64 of them.

    Attributes:
      num_classes: K.
      small_images: the 32 x 32 form.
    """

    num_classes: int = 1000
    small_images: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout: bool = False) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3); there are neither batch statistics nor dropout to switch."""
        del train, dropout
        patch = 4 if self.small_images else 16
        x = conv(images, _WIDTH, patch, "conv_proj", stride=patch, padding=0, bias=True)
        x = x.reshape(x.shape[0], -1, _WIDTH)
        token = self.param("class_token", nn.initializers.zeros_init(), (1, 1, _WIDTH))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, _WIDTH)), x], axis=1)
        return Heads(self.num_classes, name="heads")(Encoder(name="encoder")(x)[:, 0])


class Heads(nn.Module):
    """The classifier, under torchvision's name.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, C) -> (B, K)."""
        return nn.Dense(self.num_classes, name="head")(x)


MODELS = {"vit_b_16": VisionTransformer}

"""Random colour changes of ImageNet training images, on the device."""

import jax
import jax.numpy as jnp

STRENGTHS = (0.4, 0.4, 0.4, 0.2)
"""Brightness, contrast, saturation, hue: how far each may change, as the original release sets it for ImageNet."""

_LUMA = (0.299, 0.587, 0.114)


def colour_jitter(key: jax.Array, images: jax.Array) -> jax.Array:
    """Brightness, contrast, saturation and hue of each image changed at random, in an order drawn once per batch.

    Args:
      key: random key.
      images: uint8 (B, H, W, 3).

    Returns:
      float32 (B, H, W, 3) in [0, 1].
    """
    order_key, *keys = jax.random.split(key, 5)
    count = (len(images), 1, 1, 1)
    factors = [
        jax.random.uniform(k, count, minval=1 - s, maxval=1 + s) for k, s in zip(keys[:3], STRENGTHS[:3], strict=True)
    ]
    shift = jax.random.uniform(keys[3], count, minval=-STRENGTHS[3], maxval=STRENGTHS[3])
    changes = [
        lambda x: jnp.clip(x * factors[0], 0, 1),
        lambda x: _blend(x, _grey(x).mean(axis=(1, 2), keepdims=True), factors[1]),
        lambda x: _blend(x, _grey(x), factors[2]),
        lambda x: shift_hue(x, shift),
    ]
    order = jax.random.permutation(order_key, 4)
    unit = images.astype(jnp.float32) / 255
    return jax.lax.fori_loop(0, 4, lambda i, x: jax.lax.switch(order[i], changes, x), unit)


def _grey(images: jax.Array) -> jax.Array:
    """(B, H, W, 1)."""
    return (images * jnp.array(_LUMA).reshape(1, 1, 1, 3)).sum(axis=3, keepdims=True)


def _blend(images: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    return jnp.clip(factor * images + (1 - factor) * other, 0, 1)


def shift_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Hue moved on along the colour circle, through HSV: red by a third becomes green.

    Args:
      images: float (B, H, W, 3) in [0, 1].
      shift: (B, 1, 1, 1), in whole turns of the circle.

    Returns:
      float (B, H, W, 3) in [0, 1], with the lightest and darkest channel as bright as before.
    """
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value = images.max(axis=3)
    spread = value - images.min(axis=3)
    safe = jnp.where(spread > 0, spread, 1)
    hue = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + shift[..., 0]) % 1
    # A channel of HSV: value - spread * clip(distance of its hue on the circle), with offsets 5, 3, 1 (sixths).
    offsets = jnp.array((5.0, 3.0, 1.0)).reshape(1, 1, 1, 3)
    place = (offsets + 6 * hue[..., None]) % 6
    ramp = jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    return value[..., None] - spread[..., None] * ramp

"""Augmentation and normalisation on the device: pure functions to be compiled by the caller."""

import jax
import jax.numpy as jnp

from ghn_jax.images.image_set import Style


def normalise(images: jax.Array, style: Style) -> jax.Array:
    """Images (B, H, W, 3), uint8 or float32 in [0, 1], to float32 of mean 0 and deviation 1 per channel."""
    unit = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
    mean = jnp.array(style.mean, jnp.float32).reshape(1, 1, 1, 3)
    std = jnp.array(style.std, jnp.float32).reshape(1, 1, 1, 3)
    return (unit - mean) / std


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Each of the images (B, H, W, 3), padded by zeros, cut to its size at a random place."""
    if not padding:
        return images
    count, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (count, 2), 0, 2 * padding + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each of the images (B, H, W, 3) mirrored left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def crop_and_flip(key: jax.Array, images: jax.Array, style: Style) -> jax.Array:
    """The augmentation of small images: pad-4 crop at 32 x 32, scaled with the size; flip where the set allows."""
    crop_key, flip_key = jax.random.split(key)
    padding = max(round(style.crop_padding * images.shape[1] / 32), 1) if style.crop_padding else 0
    images = random_crop(crop_key, images, padding)
    return random_flip(flip_key, images) if style.flip else images


def add_noise(key: jax.Array, images: jax.Array, style: Style) -> jax.Array:
    """The noise test: Gaussian noise on uint8 images (B, H, W, 3) scaled to [0, 1], clipped to [0, 1]; float32."""
    unit = images.astype(jnp.float32) / 255
    return jnp.clip(unit + style.noise_std * jax.random.normal(key, unit.shape), 0, 1)


def cutout(key: jax.Array, images: jax.Array, side: int) -> jax.Array:
    """A square of each of the normalised images (B, H, W, 3) becomes 0 (DeVries & Taylor, 2017).

    Its centre is any pixel, so that the border may cut it; its side is that at 32 x 32, scaled with the image size.
    """
    count, height, width, _ = images.shape
    half = side * height / 64
    centres = jax.random.uniform(key, (count, 2)) * jnp.array([[height, width]])
    rows = jnp.abs(jnp.arange(height)[None, :] + 0.5 - jnp.floor(centres[:, :1]) - half % 1) < half
    columns = jnp.abs(jnp.arange(width)[None, :] + 0.5 - jnp.floor(centres[:, 1:]) - half % 1) < half
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)

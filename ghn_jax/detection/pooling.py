"""RoIAlign (He et al., 2017): features of a box on a grid, bilinearly sampled."""

import jax
import jax.numpy as jnp


def roi_align(features: jax.Array, boxes: jax.Array, stride: float, size: int = 7, samples: int = 2) -> jax.Array:
    """Features (H, W, C) in boxes (R, 4), given in pixels of the image: (R, size, size, C).

    Each cell of the grid is the mean of samples x samples points. As in torchvision without alignment by half a pixel:
    points up to one pixel outside take the border's value, those further off are 0, and a box is at least one feature
    wide and high.
    """
    height, width, _ = features.shape
    scaled = boxes / stride
    start, sides = scaled[:, :2], jnp.maximum(scaled[:, 2:] - scaled[:, :2], 1.0)
    places = (jnp.arange(size * samples) + 0.5) / samples / size
    xs = start[:, :1] + places[None, :] * sides[:, :1]
    ys = start[:, 1:] + places[None, :] * sides[:, 1:]
    across, down = _weights(xs, width), _weights(ys, height)
    mean = lambda weights: weights.reshape(len(boxes), size, samples, -1).mean(axis=2)  # noqa: E731
    return jnp.einsum("ryh,rxw,hwc->ryxc", mean(down), mean(across), features)


def _weights(places: jax.Array, length: int) -> jax.Array:
    """Weights (R, P, length) of the features of a row at places (R, P)."""
    inside = (places >= -1) & (places <= length)
    low = jnp.clip(places, 0, length - 1)
    distance = jnp.abs(low[..., None] - jnp.arange(length, dtype=places.dtype)[None, None])
    return jnp.where(inside[..., None], jnp.maximum(1 - distance, 0), 0)

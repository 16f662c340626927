"""Boxes as corners (left, top, right, bottom) in pixels: overlap, offsets, suppression; all of static shape."""

import math

import jax
import jax.numpy as jnp

LARGEST_GROWTH = math.log(1000 / 16)
"""Largest logarithm by which an offset may scale a side."""


def area(boxes: jax.Array) -> jax.Array:
    """Of boxes (.., 4); 0 for an empty one."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def overlap(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Intersection over union of boxes (A, 4) and others (M, 4): (A, M); 0 where both are empty."""
    low = jnp.maximum(boxes[:, None, :2], others[None, :, :2])
    high = jnp.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
    union = area(boxes)[:, None] + area(others)[None, :] - common
    return jnp.where(union > 0, common / jnp.maximum(union, 1e-9), 0.0)


def _centres(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def offsets(boxes: jax.Array, anchors: jax.Array, scale: float = 1.0) -> jax.Array:
    """What turns anchors (.., 4) into boxes (.., 4): shifts times `scale`, logarithms of growth (Girshick et al.).

    The box head has a `scale` of 10, which counts half for growth; proposals have 1, which counts whole.
    """
    (centre, sides), (own, own_sides) = _centres(boxes), _centres(anchors)
    own_sides = jnp.maximum(own_sides, 1e-3)
    shift = scale * (centre - own) / own_sides
    growth = _of_growth(scale) * jnp.log(jnp.maximum(sides, 1e-3) / own_sides)
    return jnp.concatenate([shift, growth], axis=-1)


def moved(anchors: jax.Array, found: jax.Array, scale: float = 1.0) -> jax.Array:
    """The inverse of `offsets`: boxes from anchors (.., 4) and offsets (.., 4)."""
    centre, sides = _centres(anchors)
    growth = jnp.minimum(found[..., 2:] / _of_growth(scale), LARGEST_GROWTH)
    centre, sides = centre + sides * found[..., :2] / scale, sides * jnp.exp(growth)
    return jnp.concatenate([centre - 0.5 * sides, centre + 0.5 * sides], axis=-1)


def _of_growth(scale: float) -> float:
    return scale if scale == 1 else scale / 2


def clipped(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Boxes (.., 4) cut at the borders of an image."""
    most = jnp.array([width, height, width, height], boxes.dtype).reshape((1,) * (boxes.ndim - 1) + (4,))
    return jnp.clip(boxes, 0, most)


def suppressed(boxes: jax.Array, scores: jax.Array, threshold: float, count: int) -> tuple[jax.Array, jax.Array]:
    """Non-maximum suppression: the best box, then the best that overlaps none of those taken too much, and so on.

    Args:
      boxes: (A, 4).
      scores: (A,); minus infinity for a box that must not be taken.
      threshold: overlap above which a box is left out.
      count: boxes to take.

    Returns:
      Rows (count,) of the boxes taken, best first, and whether there was a box to take, bool (count,).
    """

    def take(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = jnp.argmax(left)
        usable = left[best] > -jnp.inf
        near = overlap(boxes[best][None], boxes)[0] > threshold
        left = jnp.where(usable & near, -jnp.inf, left).at[best].set(-jnp.inf)
        return left, (best, usable)

    _, (rows, usable) = jax.lax.scan(take, scores, None, length=count)
    return rows, usable


def anchor_boxes(height: int, width: int, stride: int, sides: tuple[int, ...], aspects: tuple[float, ...]) -> jax.Array:
    """Anchors of one feature map: (height x width x sides x aspects, 4), in the order of its pixels.

    Each is centred on the left top corner of its pixel; an aspect is height over width, and areas are sides squared.
    """
    shapes = [
        (round(side / math.sqrt(aspect) / 2), round(side * math.sqrt(aspect) / 2))
        for aspect in aspects
        for side in sides
    ]
    base = jnp.array([[-x, -y, x, y] for x, y in shapes], jnp.float32)
    y, x = jnp.meshgrid(jnp.arange(height) * stride, jnp.arange(width) * stride, indexing="ij")
    corners = jnp.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4).astype(jnp.float32)
    return (corners + base[None]).reshape(-1, 4)

"""Losses of both stages (Ren et al., 2015, Eq. 1; Girshick, 2015), as torchvision weighs them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ghn_jax.detection.boxes import anchor_boxes, offsets
from ghn_jax.detection.matching import match, sampled
from ghn_jax.detection.model import HEAD_SCALE, DetectorConfig, Proposed

BEND = 1 / 9
"""Where the smooth absolute value of offsets turns from a square into a line."""


class Truth(NamedTuple):
    """True objects of images: boxes (B, M, 4) in pixels, classes (B, M) from 0 on, and which are no padding (B, M)."""

    boxes: jax.Array
    classes: jax.Array
    there: jax.Array


class Chosen(NamedTuple):
    """Proposals that a training step looks at.

    Attributes:
      boxes: in pixels, (B, L, 4).
      classes: of what they stand for, 0 for the background, (B, L).
      offsets: to their true boxes, (B, L, 4).
      weight: 1 for those that count, 0 for padding, (B, L).
    """

    boxes: jax.Array
    classes: jax.Array
    offsets: jax.Array
    weight: jax.Array


def proposal_loss(
    config: DetectorConfig,
    proposed: Proposed,
    truth: Truth,
    key: jax.Array,
    shapes: tuple[tuple[int, int], tuple[int, int]],
) -> jax.Array:
    """Of the first stage, a mean over images; `shapes` are those of the images and of the features."""
    (height, _), (h, w) = shapes
    anchors = anchor_boxes(h, w, height // h, config.sides, config.aspects)

    def of_image(
        key: jax.Array, logits: jax.Array, found: jax.Array, boxes: jax.Array, there: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        matched = match(anchors, boxes, there, high=0.7, low=0.3, best_of_each=True)
        positive, negative = sampled(key, matched, config.looked_at, 0.5)
        losses = optax.sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
        wanted = offsets(boxes[matched.true], anchors)
        placed = _bent(found - wanted).sum(axis=1)
        used = positive | negative
        return (
            jnp.sum(losses, where=used),
            jnp.sum(placed, where=positive),
            used.sum(),
        )

    keys = jax.random.split(key, len(truth.boxes))
    objects, places, counts = jax.vmap(of_image)(keys, proposed.objectness, proposed.offsets, truth.boxes, truth.there)
    return (objects.sum() + places.sum()) / jnp.maximum(counts.sum(), 1)


def choose(config: DetectorConfig, proposed: Proposed, truth: Truth, key: jax.Array) -> Chosen:
    """Proposals, and the true boxes themselves, a quarter of them of objects if there are so many."""

    def of_image(key: jax.Array, boxes: jax.Array, usable: jax.Array, own: Truth) -> Chosen:
        true, classes, there = own
        boxes, usable = jnp.concatenate([boxes, true]), jnp.concatenate([usable, there])
        matched = match(boxes, true, there, high=0.5, low=0.5, best_of_each=False)
        matched = matched._replace(positive=matched.positive & usable, negative=matched.negative & usable)
        positive, negative = sampled(key, matched, config.looked_at, 0.25)
        _, rows = jax.lax.top_k(2.0 * positive + negative, min(config.looked_at, len(boxes)))
        of_object = positive[rows]
        return Chosen(
            boxes[rows],
            jnp.where(of_object, classes[matched.true[rows]] + 1, 0),
            offsets(true[matched.true[rows]], boxes[rows], HEAD_SCALE),
            (positive | negative)[rows].astype(jnp.float32),
        )

    keys = jax.random.split(key, len(truth.boxes))
    found = jax.vmap(of_image)(keys, proposed.boxes, proposed.usable, truth)
    return jax.lax.stop_gradient(found)


def box_loss(chosen: Chosen, logits: jax.Array, found: jax.Array) -> jax.Array:
    """Of the second stage, a mean over proposals: logits (B, L, classes + 1), offsets (B, L, classes + 1, 4)."""
    count = jnp.maximum(chosen.weight.sum(), 1)
    classified = optax.softmax_cross_entropy_with_integer_labels(logits, chosen.classes)
    own = jnp.take_along_axis(found, chosen.classes[..., None, None], axis=2)[..., 0, :]
    placed = _bent(own - chosen.offsets).sum(axis=-1) * (chosen.classes > 0)
    return jnp.sum((classified + placed) * chosen.weight) / count


def _bent(x: jax.Array) -> jax.Array:
    """Smooth absolute value."""
    size = jnp.abs(x)
    return jnp.where(size < BEND, 0.5 * size**2 / BEND, size - 0.5 * BEND)

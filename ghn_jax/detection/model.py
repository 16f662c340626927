"""Faster R-CNN without a feature pyramid (Ren et al., 2015), on the last feature map of any backbone."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.detection.boxes import anchor_boxes, clipped, moved, suppressed
from ghn_jax.detection.pooling import roi_align

HEAD_SCALE = 10.0
"""Of offsets of the box head (`boxes.offsets`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorConfig:
    """A detector; the defaults are those of torchvision, but for anchors and counts, which suit small images.

    Attributes:
      classes: of objects, without the background.
      sides, aspects: of anchors, in pixels and height over width.
      proposals: boxes that the first stage hands on; of the `candidates` best before suppression.
      candidates: see above.
      proposal_overlap: of proposals, above which the worse one is left out.
      looked_at: anchors and proposals of an image that a training step looks at.
      hidden: width of the box head.
      detections: of an image.
      least_score: of a detection.
      detection_overlap: of detections of one class, above which the worse one is left out.
    """

    classes: int = 1
    sides: tuple[int, ...] = (16, 32, 64)
    aspects: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 100
    candidates: int = 500
    proposal_overlap: float = 0.7
    looked_at: int = 64
    hidden: int = 256
    detections: int = 20
    least_score: float = 0.05
    detection_overlap: float = 0.5


class Proposed(NamedTuple):
    """What the first stage gives for images (B, H, W, 3).

    Attributes:
      objectness: logits of anchors, (B, A).
      offsets: of anchors, (B, A, 4).
      boxes: proposals in pixels, (B, P, 4).
      usable: which of them there are, bool (B, P).
    """

    objectness: jax.Array
    offsets: jax.Array
    boxes: jax.Array
    usable: jax.Array


class Detections(NamedTuple):
    """Of images.

    Attributes:
      boxes: in pixels, (B, D, 4).
      classes: from 0 on, (B, D).
      scores: in [0, 1], (B, D); minus infinity where there is no detection.
    """

    boxes: jax.Array
    classes: jax.Array
    scores: jax.Array


class Heads(nn.Module):
    """Proposals from features of a width, and classes and boxes of proposals."""

    config: DetectorConfig
    width: int

    def setup(self) -> None:
        """Layers of both stages, initialised as torchvision's."""
        anchors = len(self.config.sides) * len(self.config.aspects)
        normal = nn.initializers.normal(0.01)
        self.shared = nn.Conv(self.width, (3, 3), kernel_init=normal)
        self.objectness = nn.Conv(anchors, (1, 1), kernel_init=normal)
        self.offsets = nn.Conv(4 * anchors, (1, 1), kernel_init=normal)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.hidden_1 = nn.Dense(self.config.hidden, kernel_init=uniform)
        self.hidden_2 = nn.Dense(self.config.hidden, kernel_init=uniform)
        self.classes = nn.Dense(self.config.classes + 1, kernel_init=uniform)
        self.boxes = nn.Dense(4 * (self.config.classes + 1), kernel_init=uniform)

    def propose(self, features: jax.Array, height: int, width: int) -> Proposed:
        """From features (B, h, w, C) of images of a height and width."""
        config, (count, h, w, _) = self.config, features.shape
        x = nn.relu(self.shared(features))
        logits = self.objectness(x).reshape(count, -1)
        offsets = self.offsets(x).reshape(count, -1, 4)
        anchors = anchor_boxes(h, w, height // h, config.sides, config.aspects)
        boxes = clipped(moved(anchors[None], jax.lax.stop_gradient(offsets)), height, width)

        def best(logits: jax.Array, boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
            scores, rows = jax.lax.top_k(logits, min(config.candidates, len(logits)))
            chosen = boxes[rows]
            whole = (chosen[:, 2:] - chosen[:, :2] >= 1).all(axis=1)
            scores = jnp.where(whole, scores, -jnp.inf)
            kept, usable = suppressed(chosen, scores, config.proposal_overlap, config.proposals)
            return chosen[kept], usable

        proposals, usable = jax.vmap(best)(jax.lax.stop_gradient(logits), boxes)
        return Proposed(logits, offsets, proposals, usable)

    def classify(self, features: jax.Array, boxes: jax.Array, stride: float) -> tuple[jax.Array, jax.Array]:
        """Logits (B, P, classes + 1), the background first, and offsets (B, P, classes + 1, 4) of boxes (B, P, 4)."""
        pooled = jax.vmap(lambda own, at: roi_align(own, at, stride))(features, boxes)
        x = nn.relu(self.hidden_1(pooled.reshape(*boxes.shape[:2], -1)))
        x = nn.relu(self.hidden_2(x))
        return self.classes(x), self.boxes(x).reshape(*boxes.shape[:2], -1, 4)

    def __call__(self, features: jax.Array, height: int, width: int) -> Any:
        """Both stages, for initialisation."""
        proposed = self.propose(features, height, width)
        return self.classify(features, proposed.boxes, height / features.shape[1])


def detections(
    config: DetectorConfig, proposed: Proposed, logits: jax.Array, offsets: jax.Array, size: tuple[int, int]
) -> Detections:
    """The best boxes of all classes.

    Args:
      config: of the detector.
      proposed: of the first stage.
      logits: of the second stage, as `Heads.classify` gives them.
      offsets: of the second stage.
      size: height and width of the images.
    """

    def of_image(
        boxes: jax.Array, usable: jax.Array, logits: jax.Array, offsets: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        scores = jax.nn.softmax(logits)[:, 1:]
        placed = clipped(moved(boxes[:, None], offsets[:, 1:], HEAD_SCALE), *size)
        scores = jnp.where(usable[:, None] & (scores > config.least_score), scores, -jnp.inf)

        def of_class(scores: jax.Array, placed: jax.Array) -> tuple[jax.Array, jax.Array]:
            rows, there = suppressed(placed, scores, config.detection_overlap, config.detections)
            return placed[rows], jnp.where(there, scores[rows], -jnp.inf)

        found, best = jax.vmap(of_class, in_axes=1)(scores, placed)
        most, rows = jax.lax.top_k(best.ravel(), config.detections)
        return found.reshape(-1, 4)[rows], rows // config.detections, most

    return Detections(*jax.vmap(of_image)(proposed.boxes, proposed.usable, logits, offsets))

"""Boxes, pooling, matching: against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.detection.boxes import anchor_boxes, clipped, moved, offsets, overlap, suppressed
from ghn_jax.detection.matching import match, sampled
from ghn_jax.detection.pooling import roi_align


def boxes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(2, 20, (count, 2))], axis=1).astype(np.float32)


def plain_overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    common = sides[0] * sides[1]
    return common / (sum(areas) - common)


def test_overlap() -> None:
    one, other = boxes(7), boxes(5, 1)
    expected = [[plain_overlap(a, b) for b in other] for a in one]
    np.testing.assert_allclose(overlap(jnp.asarray(one), jnp.asarray(other)), expected, rtol=1e-5, atol=1e-6)
    empty = jnp.zeros((1, 4))
    assert float(overlap(empty, empty)[0, 0]) == 0


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_offsets_and_back(scale: float) -> None:
    true, anchors = jnp.asarray(boxes(9)), jnp.asarray(boxes(9, 1))
    np.testing.assert_allclose(moved(anchors, offsets(true, anchors, scale), scale), true, rtol=1e-4, atol=1e-3)
    assert not np.any(offsets(anchors, anchors, scale))
    grown = moved(anchors, jnp.full((9, 4), 1e6), scale)
    assert np.isfinite(grown).all()
    np.testing.assert_array_equal(clipped(grown, 30, 20)[:, 2:], np.tile([20.0, 30.0], (9, 1)))


def plain_suppressed(found: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if np.isfinite(scores[row]) and all(plain_overlap(found[row], found[other]) <= threshold for other in kept):
            kept.append(int(row))
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_suppression(seed: int) -> None:
    found = boxes(40, seed)
    scores = np.random.default_rng(seed).normal(size=40).astype(np.float32)
    scores[:5] = -np.inf
    rows, usable = suppressed(jnp.asarray(found), jnp.asarray(scores), 0.3, 40)
    assert np.asarray(rows)[np.asarray(usable)].tolist() == plain_suppressed(found, scores, 0.3)
    assert int(usable.sum()) <= 35


def test_anchors() -> None:
    found = np.asarray(anchor_boxes(2, 3, 8, (16, 32), (0.5, 1.0)))
    assert found.shape == (2 * 3 * 4, 4)
    np.testing.assert_array_equal(found[2], [-8, -8, 8, 8])
    np.testing.assert_array_equal(found[0], [-11, -6, 11, 6])
    np.testing.assert_array_equal(found[4:8] - found[:4], np.tile([8, 0, 8, 0], (4, 1)))
    np.testing.assert_array_equal(found[12:16] - found[:4], np.tile([0, 8, 0, 8], (4, 1)))


def plain_roi_align(features: np.ndarray, box: np.ndarray, stride: float, size: int, samples: int) -> np.ndarray:
    height, width, channels = features.shape
    left, top, right, bottom = box / stride
    wide, high = max(right - left, 1.0), max(bottom - top, 1.0)
    out = np.zeros((size, size, channels))

    def at(y: float, x: float) -> np.ndarray:
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(channels)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        fy, fx = y - y0, x - x0
        upper = (1 - fx) * features[y0, x0] + fx * features[y0, x1]
        lower = (1 - fx) * features[y1, x0] + fx * features[y1, x1]
        return (1 - fy) * upper + fy * lower

    for row in range(size):
        for column in range(size):
            for i in range(samples):
                for j in range(samples):
                    y = top + (row + (i + 0.5) / samples) * high / size
                    x = left + (column + (j + 0.5) / samples) * wide / size
                    out[row, column] += at(y, x) / samples**2
    return out


def test_pooling() -> None:
    features = np.random.default_rng(0).normal(size=(6, 9, 3)).astype(np.float32)
    found = np.array([[3, 5, 50, 40], [0, 0, 4, 4], [60, 30, 90, 70], [-30, -20, 10, 10]], np.float32)
    pooled = roi_align(jnp.asarray(features), jnp.asarray(found), 8.0, 7, 2)
    for box, own in zip(found, pooled, strict=True):
        np.testing.assert_allclose(own, plain_roi_align(features, box, 8.0, 7, 2), atol=1e-5)


def test_matching() -> None:
    true = jnp.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]], jnp.float32)
    found = jnp.array([[0, 0, 10, 9], [0, 0, 10, 4], [22, 22, 40, 40], [50, 50, 60, 60]], jnp.float32)
    there = jnp.array([True, True, False])
    matched = match(found, true, there, high=0.7, low=0.3, best_of_each=True)
    assert matched.positive.tolist() == [True, False, True, False]  # the third is the best of its box
    assert matched.negative.tolist() == [False, False, False, True]
    assert matched.true.tolist()[:3] == [0, 0, 1]
    none = match(found, true, jnp.zeros(3, bool), high=0.7, low=0.3, best_of_each=True)
    assert not none.positive.any()
    assert none.negative.all()


def test_samples() -> None:
    positive = jnp.arange(100) < 40
    matched = match(jnp.zeros((100, 4)), jnp.zeros((1, 4)), jnp.zeros(1, bool), high=0.5, low=0.5, best_of_each=False)
    matched = matched._replace(positive=positive, negative=~positive)
    chosen, others = sampled(jax.random.key(0), matched, 32, 0.25)
    assert (int(chosen.sum()), int(others.sum())) == (8, 24)
    assert not (chosen & ~positive).any()
    assert not (others & positive).any()
    few = matched._replace(positive=jnp.arange(100) < 3)
    chosen, others = sampled(jax.random.key(0), few._replace(negative=~few.positive), 32, 0.25)
    assert (int(chosen.sum()), int(others.sum())) == (3, 29)
    again, _ = sampled(jax.random.key(1), matched, 32, 0.25)
    first, _ = sampled(jax.random.key(0), matched, 32, 0.25)
    assert (again != first).any()

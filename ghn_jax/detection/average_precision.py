"""Average precision of boxes as COCO defines it, by its own library."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.detection.data import Scenes
from ghn_jax.detection.model import Detections


class AveragePrecision(NamedTuple):
    """In [0, 1]: the mean over overlaps from 0.50 to 0.95, and that at 0.50; at most 100 boxes an image."""

    mean: float
    at_half: float


def average_precision(scenes: Scenes, found: Sequence[Detections]) -> AveragePrecision:
    """Average precision of detections of scenes.

    Args:
      scenes: images with true boxes.
      found: detections of the scenes in order, in batches (B, D).

    Raises:
      ValueError: without the package pycocotools.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError:
        raise ValueError("average precision needs the package pycocotools: pip install 'ghn_jax[detection]'") from None
    boxes, classes, scores = (np.concatenate([np.asarray(batch[part]) for batch in found]) for part in range(3))
    truth, answers = _truth(scenes), []
    for image in range(len(scenes)):
        for box, kind, score in zip(boxes[image], classes[image], scores[image], strict=True):
            if np.isfinite(score):
                own = {"image_id": image + 1, "category_id": int(kind) + 1, "score": float(score)}
                answers.append({**own, "bbox": _sides(box)})
    if not answers:
        return AveragePrecision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()  # its types know files only
        coco.dataset = truth
        coco.createIndex()
        evaluation: Any = COCOeval(coco, coco.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(float(evaluation.stats[0]), float(evaluation.stats[1]))


def _truth(scenes: Scenes) -> dict[str, Any]:
    """Scenes in COCO's form; numbers begin at 1."""
    annotations = []
    for image in range(len(scenes)):
        for box, kind in zip(scenes.boxes[image], scenes.classes[image], strict=True):
            if kind >= 0:
                sides = _sides(box)
                own = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": int(kind) + 1, "iscrowd": 0}
                annotations.append({**own, "bbox": sides, "area": sides[2] * sides[3]})
    kinds = range(int(scenes.classes.max(initial=0)) + 1)
    return {
        "info": {},
        "images": [{"id": image + 1} for image in range(len(scenes))],
        "annotations": annotations,
        "categories": [{"id": kind + 1} for kind in kinds],
    }


def _sides(box: np.ndarray) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]

"""Detection: Faster R-CNN on a predicted or random backbone."""

from ghn_jax.detection.average_precision import AveragePrecision, average_precision
from ghn_jax.detection.data import Scenes, digit_scenes, penn_fudan
from ghn_jax.detection.model import DetectorConfig
from ghn_jax.detection.task import DetectionConfig, DetectorTask, train_detector

__all__ = [
    "AveragePrecision",
    "DetectionConfig",
    "DetectorConfig",
    "DetectorTask",
    "Scenes",
    "average_precision",
    "digit_scenes",
    "penn_fudan",
    "train_detector",
]

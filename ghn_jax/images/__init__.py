"""Image sets as uint8 arrays or streams, and their batches on the device."""

from ghn_jax.images.image_set import ImageSet, ImageSplit, Style
from ghn_jax.images.load import load_images
from ghn_jax.images.pipeline import Batch, TrainBatches, eval_batches, train_batches
from ghn_jax.images.splits import few_shot
from ghn_jax.images.stream import ImageStream

__all__ = [
    "Batch",
    "ImageSet",
    "ImageSplit",
    "ImageStream",
    "Style",
    "TrainBatches",
    "eval_batches",
    "few_shot",
    "load_images",
    "train_batches",
]

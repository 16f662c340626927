"""Image sets as uint8 arrays or streams, and their batches on the device."""

from ghn_jax.images.image_set import ImageSet as ImageSet
from ghn_jax.images.image_set import ImageSplit as ImageSplit
from ghn_jax.images.image_set import Style as Style
from ghn_jax.images.load import load_images as load_images
from ghn_jax.images.pipeline import Batch as Batch
from ghn_jax.images.pipeline import TrainBatches as TrainBatches
from ghn_jax.images.pipeline import eval_batches as eval_batches
from ghn_jax.images.pipeline import train_batches as train_batches
from ghn_jax.images.splits import few_shot as few_shot
from ghn_jax.images.stream import ImageStream as ImageStream

"""The images of a run, and what of its configuration depends on them."""

import dataclasses

from ghn_jax.images import ImageSet, ImageStream, few_shot, load_images
from ghn_jax.metatraining.config import TrainConfig


def resolve(config: TrainConfig) -> tuple[TrainConfig, ImageSet | ImageStream]:
    """Loads the images and fills in what depends on them: number of classes and image size."""
    images = load_sized(config, config.images.image_size)
    return dataclasses.replace(
        config,
        images=dataclasses.replace(config.images, image_size=images.image_size),
        ghn=config.ghn.replace(num_classes=images.num_classes),
    ), images


def load_sized(config: TrainConfig, size: int | None) -> ImageSet | ImageStream:
    """The images of a configuration, at a size (None: the set's own) instead of its own."""
    wanted = config.images
    images = load_images(wanted.dataset, size, wanted.data_dir, wanted.image_workers, wanted.bad_images)
    if wanted.images_per_class is not None:
        if not isinstance(images, ImageSet):
            raise ValueError(f"--images-per-class needs a set that fits in memory; {wanted.dataset!r} is streamed")
        few = few_shot(images.train, wanted.images_per_class, config.run.seed, choice=wanted.few_shot)
        images = dataclasses.replace(images, train=few)
    return images

"""What a run begins with: its images, what of its configuration depends on them, and its first weights."""

import dataclasses
import logging
import os
import pathlib
from typing import Any

import jax

from ghn_jax.hypernet import GHN, PretrainedGHN, init_ghn, load_ghn, with_classes
from ghn_jax.images import ImageSet, ImageStream, few_shot, load_images
from ghn_jax.keys import INITIALISATION, named_key
from ghn_jax.metatraining.config import ImageConfig, TrainConfig
from ghn_jax.metatraining.config_files import load_config
from ghn_jax.metatraining.optimisation import initial_state
from ghn_jax.runs.checkpoints import FOLDER, best_step, restore

_LOG = logging.getLogger(__name__)


def resolve(config: TrainConfig) -> tuple[TrainConfig, ImageSet | ImageStream]:
    """Loads the images and fills in what depends on them: number of classes and image size."""
    images = load_sized(config.images, config.images.image_size, config.run.seed)
    return dataclasses.replace(
        config,
        images=dataclasses.replace(config.images, image_size=images.image_size),
        ghn=config.ghn.replace(num_classes=images.num_classes),
    ), images


def load_sized(wanted: ImageConfig, size: int | None, seed: int) -> ImageSet | ImageStream:
    """The images of a configuration, at a size (None: the set's own) instead of its own; few of them by a seed."""
    images = load_images(wanted.dataset, size, wanted.data_dir, wanted.image_workers, wanted.bad_images)
    if wanted.images_per_class is not None:
        if not isinstance(images, ImageSet):
            raise ValueError(f"--images-per-class needs a set that fits in memory; {wanted.dataset!r} is streamed")
        few = few_shot(images.train, wanted.images_per_class, seed, choice=wanted.few_shot)
        images = dataclasses.replace(images, train=few)
    return images


def initialise(config: TrainConfig) -> tuple[GHN, Any]:
    """The hypernetwork of a resolved configuration and its first weights.

    They are those of `config.run.start_from`, for other classes as `hypernet.with_classes` gives them, else random ones
    that depend on the seed alone.

    Raises:
      ValueError: for a start of another configuration; names what differs.
    """
    ghn, key = GHN(config.ghn), named_key(config.run.seed, INITIALISATION)
    if config.run.start_from is not None:
        start = load_trained(config.run.start_from)
        classes = start.config.num_classes
        if classes != config.ghn.num_classes:
            start = with_classes(start, config.ghn.num_classes, key)
            _LOG.info(
                "%s is for %d classes, not %d: weights that depend on their number begin anew",
                config.run.start_from,
                classes,
                config.ghn.num_classes,
            )
        pairs = (
            (f.name, getattr(start.config, f.name), getattr(config.ghn, f.name)) for f in dataclasses.fields(config.ghn)
        )
        different = [f"{name} is {theirs!r}, wanted {ours!r}" for name, theirs, ours in pairs if theirs != ours]
        if different:
            raise ValueError(
                f"--start-from {config.run.start_from!r} is another hypernetwork than the run's: {'; '.join(different)}"
            )
        return ghn, start.variables["params"]
    return ghn, init_ghn(ghn, key)["params"]


def load_trained(source: str | os.PathLike[str]) -> PretrainedGHN:
    """The hypernetwork of a run's folder (its best checkpoint), or anything that `hypernet.load_ghn` takes.

    Raises:
      ValueError: for a run without checkpoints, or where `load_ghn` does.
    """
    folder = pathlib.Path(source)
    if not (folder / FOLDER).is_dir():
        return load_ghn(source)
    config = load_config(folder)
    ghn = GHN(config.ghn)
    like = initial_state(config.optimiser, init_ghn(ghn, jax.random.key(0))["params"])
    best = best_step(folder)
    if best is None:
        raise ValueError(f"{folder} holds no checkpoint yet")
    state, _ = restore(folder, best, like)
    return PretrainedGHN(ghn, {"params": state.learned})

"""The meta-training loop."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp

from ghn_jax.deepnets.sources import training_stream
from ghn_jax.hypernet import GHN, init_ghn, save_file
from ghn_jax.images import ImageSet, ImageStream, few_shot, load_images, train_batches
from ghn_jax.metatraining.ahead import CompiledAhead
from ghn_jax.metatraining.bookkeeping import Bookkeeper
from ghn_jax.metatraining.config import TrainConfig, check_resumable, save_config, to_json
from ghn_jax.metatraining.optimisation import initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.metatraining.validation import Validator
from ghn_jax.runs import devices
from ghn_jax.runs.checkpoints import Checkpoints

GHN_FILE = "ghn.npz"
"""The trained hypernetwork alone, for `hypernet.load_ghn`, in the run's folder."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """A run that ended.

    Attributes:
      config: resolved.
      ghn: the hypernetwork.
      params: its weights, on the host.
      images: the image set.
      steps: updates made (or skipped) in all.
      finished: whether it came to its configured end; False if a signal ended it.
    """

    config: TrainConfig
    ghn: GHN
    params: Any
    images: ImageSet | ImageStream
    steps: int
    finished: bool


def resolve(config: TrainConfig) -> tuple[TrainConfig, ImageSet | ImageStream]:
    """Loads the images and fills in what depends on them: number of classes and image size."""
    wanted = config.images
    images = load_images(wanted.dataset, wanted.image_size, wanted.data_dir, wanted.image_workers)
    if wanted.images_per_class is not None:
        if not isinstance(images, ImageSet):
            raise ValueError(f"--images-per-class needs a set that fits in memory; {wanted.dataset!r} is streamed")
        few = few_shot(images.train, wanted.images_per_class, config.run.seed, choice=wanted.few_shot)
        images = dataclasses.replace(images, train=few)
    return dataclasses.replace(
        config,
        images=dataclasses.replace(wanted, image_size=images.image_size),
        ghn=config.ghn.replace(num_classes=images.num_classes),
    ), images


def initialise(config: TrainConfig) -> tuple[GHN, Any]:
    """The hypernetwork of a resolved configuration and its random weights, which depend on the seed alone."""
    ghn = GHN(config.ghn)
    return ghn, init_ghn(ghn, jax.random.key(config.run.seed))["params"]


def train(config: TrainConfig) -> TrainResult:
    """Trains, or goes on where a run in the same folder stopped, until the configured end.

    Raises:
      ValueError: for images that cannot be had, or a folder that holds a run of another configuration.
      TooManySkippedError: if too many updates are not finite.
    """
    config, images = resolve(config)
    check_resumable(config)
    batches = train_batches(images, config.images.batch_size, config.run.seed)
    mesh = devices.arch_mesh()
    ghn, params = initialise(config)
    state = devices.replicate(initial_state(config.optimiser, params), mesh)
    checkpoints = Checkpoints(config.run_dir, config.run.keep_last)
    first, position = 0, 0
    if (latest := checkpoints.latest()) is not None:
        state, rest = checkpoints.restore(latest, state)
        first, position = latest, int(rest["position"])
    if jax.process_index() == 0:
        save_config(config, config.run_dir)
        print(json.dumps(to_json(config)), flush=True)
    step = MetaStep(ghn, config.optimiser, mesh, params, dtype=jnp.dtype(config.run.dtype), threads=config.run.threads)
    shape = (config.images.batch_size, images.image_size, images.image_size, 3)
    ahead = CompiledAhead(
        training_stream(config.architectures, config.task, config.run.seed, position),
        step,
        shape,
        ahead=config.run.compile_ahead,
        threads=config.run.compile_threads,
    )
    books = Bookkeeper(
        config, step, checkpoints, Validator(config, ghn, images), steps_per_epoch=batches.steps_per_epoch, first=first
    )
    total = config.optimiser.total_steps(batches.steps_per_epoch)
    root = jax.random.key(config.run.seed)
    done = first
    try:
        with books:
            while done < total and not books.stop:
                batch = ahead.next()
                rate = config.optimiser.rate(done, batches.steps_per_epoch)
                state, report = step(state, batch, batches.batch(done), rate, jax.random.fold_in(root, done))
                books.after_step(done, state, batch, report, rate=rate, waited=ahead.waited)
                done += 1
    finally:
        ahead.close()
        checkpoints.close()
    trained = jax.device_get(devices.copy_on(state.params, jax.local_devices()[0]))
    if jax.process_index() == 0:
        save_file(config.run_dir / GHN_FILE, config.ghn, {"params": trained})
    return TrainResult(config, ghn, trained, images, done, not books.interrupted)

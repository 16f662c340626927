"""Presets of meta-training: the defaults of everything else."""

import dataclasses

from ghn_jax.deepnets.sources import ArchitectureConfig
from ghn_jax.hypernet import GHNConfig
from ghn_jax.metatraining.config import ImageConfig, Preset, RunConfig, TrainConfig
from ghn_jax.metatraining.optimisation import OptimiserConfig

GHN3_OPTIMISER = OptimiserConfig(
    learning_rate=4e-4, schedule="cosine-warmup", l2=0.0, weight_decay=1e-2, norm_penalty=3e-5
)

PRESETS: dict[Preset, TrainConfig] = {
    "ghn2": TrainConfig("ghn2"),
    "ghn1": TrainConfig("ghn1", ghn=GHNConfig.preset("ghn1"), architectures=ArchitectureConfig(meta_batch=1)),
    "mlp": TrainConfig("mlp", ghn=GHNConfig.preset("mlp")),
    "demo": TrainConfig(
        "demo",
        images=ImageConfig(image_size=8),
        architectures=ArchitectureConfig(split="demo", meta_batch=4),
        ghn=GHNConfig(max_shape=(16, 16, 11, 11)),
        optimiser=OptimiserConfig(epochs=1_000, steps=2_500, learning_rate=2e-3, schedule="cosine", warmup_steps=50),
        run=RunConfig(
            minutes=7.0, checkpoint_minutes=2.0, validate_every=250, validation_architectures=10, test_images=None
        ),
    ),
}


PRESETS["ghn3-t"] = TrainConfig("ghn3-t", ghn=GHNConfig.preset("ghn3-t"), optimiser=GHN3_OPTIMISER)
PRESETS["ghn3-tiny"] = dataclasses.replace(
    PRESETS["demo"],
    preset="ghn3-tiny",
    ghn=GHNConfig.preset("ghn3-t").replace(max_shape=(16, 16, 11, 11), hid=32),
    optimiser=dataclasses.replace(GHN3_OPTIMISER, epochs=1_000, steps=2_500),
)


def imagenet_scale(config: TrainConfig) -> TrainConfig:
    """What the papers change for ImageNet: tensors decoded, batch, epochs, label smoothing.

    Applies to the defaults of a preset only, before the command line.
    """
    is_ghn3 = config.preset.startswith("ghn3")
    epochs, images, largest = (75, 128, config.ghn.max_shape[0]) if is_ghn3 else (150, 256, 64)
    steps = {"milestones": (100, 140)} if config.optimiser.schedule == "steps" else {}
    optimiser = dataclasses.replace(config.optimiser, epochs=epochs, label_smoothing=0.1, **steps)
    return dataclasses.replace(
        config,
        images=dataclasses.replace(config.images, batch_size=images),
        ghn=config.ghn.replace(max_shape=(largest, largest, 16, 16)),
        optimiser=optimiser,
    )

"""Where the architectures of a run come from: endless meta-batches to train on, fixed lists to evaluate on."""

from collections.abc import Iterator

from ghn_jax.deepnets import ArchitectureStream, MetaBatch, NetworkArgs, in_background
from ghn_jax.graphs import ArchGraph
from ghn_jax.training.config import ArchitectureConfig
from ghn_jax.training.demo_space import DemoStream

DEMO = "demo"

Named = tuple[int, NetworkArgs, ArchGraph]
"""Number within its list, arguments and graph."""

_VALIDATION_OFFSET = 1_000_000
"""Positions of the demo's held-out space that validate; those from 0 test."""


def training_stream(
    config: ArchitectureConfig, seed: int, num_classes: int, image_size: int, position: int
) -> Iterator[MetaBatch]:
    """Meta-batches from a position of the run's stream on, made by background processes if the config asks for them."""
    stream = _stream(config, config.split, seed, num_classes, image_size, position)
    if config.sampler_workers:
        return in_background(stream, config.sampler_workers)
    return stream


def evaluation_architectures(
    config: ArchitectureConfig, split: str, count: int, num_classes: int, image_size: int
) -> Iterator[Named]:
    """The first `count` architectures of an evaluation split; those of the demo are its held-out ones."""
    single = ArchitectureConfig(meta_batch=1, max_nodes=1_000_000, demo_width=config.demo_width)
    if config.split == DEMO:
        offset = _VALIDATION_OFFSET if split == "val" else 0
        source: ArchitectureStream = _stream(single, DEMO, 0, num_classes, image_size, offset, tests=True)
    else:
        source = _stream(single, split, 0, num_classes, image_size, 0)
    for number in range(count):
        batch = next(source)
        yield number, batch.args[0], batch.graphs[0]


def _stream(
    config: ArchitectureConfig,
    split: str,
    seed: int,
    num_classes: int,
    image_size: int,
    position: int,
    tests: bool = False,
) -> ArchitectureStream:
    common = {
        "meta_batch": config.meta_batch,
        "max_nodes": config.max_nodes,
        "num_architectures": config.num_architectures,
        "num_classes": num_classes,
        "image_size": image_size,
    }
    if split == DEMO:
        return DemoStream("train", seed, position, width=config.demo_width, tests=tests, **common)
    return ArchitectureStream(split, seed, position, **common)

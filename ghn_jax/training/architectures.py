"""Where the architectures of a run come from: endless meta-batches to train on, fixed lists to evaluate on."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ghn_jax.deepnets import ArchitectureStream, MetaBatch, NetworkArgs, in_background
from ghn_jax.graphs import ArchGraph
from ghn_jax.training.config import ArchitectureConfig, Task
from ghn_jax.training.demo_space import DemoStream

DEMO = "demo"


Named = tuple[int, NetworkArgs, ArchGraph]
"""Number within its list, arguments and graph."""

_VALIDATION_OFFSET = 1_000_000
"""Positions of the demo's held-out space that validate; those from 0 test."""


def training_stream(config: ArchitectureConfig, task: Task, seed: int, position: int) -> Iterator[MetaBatch]:
    """Meta-batches from a position of the run's stream on, made by background processes if the config asks for them."""
    stream = _stream(config, task, config.split, seed=seed, position=position)
    if config.sampler_workers:
        return in_background(stream, config.sampler_workers)
    return stream


def evaluation_architectures(config: ArchitectureConfig, task: Task, split: str, count: int) -> Iterator[Named]:
    """The first `count` architectures of an evaluation split; those of the demo are its held-out ones."""
    single = dataclasses.replace(config, meta_batch=1, max_nodes=1_000_000, num_architectures=None)
    offset = _VALIDATION_OFFSET if config.split == DEMO and split == "val" else 0
    source = _stream(single, task, split, seed=0, position=offset)
    for number in range(count):
        batch = next(source)
        yield number, batch.args[0], batch.graphs[0]


def _stream(config: ArchitectureConfig, task: Task, split: str, *, seed: int, position: int) -> ArchitectureStream:
    common: dict[str, Any] = {
        "meta_batch": config.meta_batch,
        "max_nodes": config.max_nodes,
        "num_architectures": config.num_architectures,
        "num_classes": task.num_classes,
        "image_size": task.image_size,
    }
    if config.split == DEMO:
        return DemoStream("train", seed, position, width=config.demo_width, tests=split != DEMO, **common)
    return ArchitectureStream(split, seed, position, **common)

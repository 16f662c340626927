"""Where the architectures of a run come from: endless meta-batches to train on, fixed lists to evaluate on."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import numpy as np

from ghn_jax.deepnets import (
    VIT,
    ArchitectureStream,
    DatasetReader,
    MetaBatch,
    NetworkArgs,
    draw_width,
    in_background,
    network_graph,
    resnet50_graph,
)
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE
from ghn_jax.graphs import ArchGraph
from ghn_jax.networks import zoo
from ghn_jax.training.config import ArchitectureConfig, Task
from ghn_jax.training.demo_space import DemoStream

DEMO = "demo"
PREDEFINED = "predefined"

Named = tuple[int, NetworkArgs | nn.Module, ArchGraph]
"""Number within its list, arguments (or the model itself, if it has no cells) and graph."""

_VALIDATION_OFFSET = 1_000_000
"""Positions of the demo's held-out space that validate; those from 0 test."""


@dataclasses.dataclass
class FileStream(ArchitectureStream):
    """As `ArchitectureStream`, from a dataset file of the release, in a new random order every round.

    Attributes:
      path: the HDF5 file; its JSON lies beside it.
    """

    path: pathlib.Path = pathlib.Path()

    def _architecture(self, position: int) -> tuple[NetworkArgs, ArchGraph]:
        reader = _reader(self.path, self.split, self.num_classes, self.image_size)
        count = min(self.num_architectures or len(reader), len(reader))
        lap, place = divmod(position, count)
        index = int(np.random.default_rng((self.seed, 0, lap)).permutation(count)[place])
        args = draw_width(reader.args(index), np.random.default_rng((self.seed, 1, position)))
        return args, network_graph(args, f"{self.split}/{index}")


@functools.lru_cache(maxsize=2)
def _reader(path: pathlib.Path, split: str, num_classes: int, image_size: int) -> DatasetReader:
    return DatasetReader(path, split, num_classes=num_classes, image_size=image_size)


def training_stream(config: ArchitectureConfig, task: Task, seed: int, position: int) -> Iterator[MetaBatch]:
    """Meta-batches from a position of the run's stream on, made by background processes if the config asks for them.

    Raises:
      ValueError: for an unknown split or a missing file.
    """
    stream = _stream(config, task, config.split, seed=seed, position=position)
    if isinstance(stream, FileStream):
        len(_reader(stream.path, stream.split, *task))  # a missing file or split is told here, not by a worker
    if config.sampler_workers:
        return in_background(stream, config.sampler_workers)
    return stream


def evaluation_architectures(config: ArchitectureConfig, task: Task, split: str, count: int) -> Iterator[Named]:
    """The first `count` architectures of an evaluation split; those of the demo are its held-out ones.

    With an `architecture_file` they come from it, at the width that it gives them. ``predefined`` is ResNet-50, which
    has no cells and comes as a model of the zoo, and the ViT.

    Raises:
      ValueError: for an unknown split or a missing file.
    """
    if split == PREDEFINED:
        small = task.image_size <= LARGE_IMAGE_ABOVE
        resnet = zoo.create("resnet50", task.num_classes, small_images=small)
        args = VIT.replace(num_classes=task.num_classes, image_size=task.image_size)
        both = (
            (0, resnet, resnet50_graph(task.num_classes, task.image_size, "predefined/ResNet-50")),
            (1, args, network_graph(args, "predefined/ViT")),
        )
        yield from both[:count]
        return
    if config.architecture_file is not None:
        reader = _reader(config.architecture_file, split, *task)
        for number in range(min(count, len(reader))):
            yield number, reader.args(number), reader.graph(number)
        return
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
    if config.architecture_file is not None:
        return FileStream(split, seed, position, path=config.architecture_file, **common)
    return ArchitectureStream(split, seed, position, **common)

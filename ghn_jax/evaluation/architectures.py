"""Fixed lists of architectures to evaluate on."""

import dataclasses
from collections.abc import Iterator

import flax.linen as nn

from ghn_jax.deepnets import VIT, NetworkArgs, network_graph, resnet50_graph
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE
from ghn_jax.deepnets.sources import DEMO, ArchitectureConfig, Task, architecture_stream, open_split
from ghn_jax.graphs import ArchGraph
from ghn_jax.networks import zoo

PREDEFINED = "predefined"

Named = tuple[int, NetworkArgs | nn.Module, ArchGraph]
"""Number within its list, arguments (or the model itself, if it has no cells) and graph."""

_VALIDATION_OFFSET = 1_000_000
"""Positions of the demo's held-out space that validate; those from 0 test."""


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
        reader = open_split(config.architecture_file, split, *task)
        for number in range(min(count, len(reader))):
            yield number, reader.args(number), reader.graph(number)
        return
    single = dataclasses.replace(config, meta_batch=1, max_nodes=1_000_000, num_architectures=None)
    offset = _VALIDATION_OFFSET if config.split == DEMO and split == "val" else 0
    source = architecture_stream(single, task, split, seed=0, position=offset)
    for number in range(count):
        batch = next(source)
        yield number, batch.args[0], batch.graphs[0]

"""Fixed lists of architectures to evaluate on."""

import dataclasses
import logging
from collections.abc import Iterator

import flax.linen as nn

from ghn_jax.deepnets import SPLITS, VIT, NetworkArgs, network_graph, resnet50_graph
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE
from ghn_jax.deepnets.held_out import EVALUATION_SEED, held_out_count, split_file
from ghn_jax.deepnets.sources import DEMO, PREDEFINED, ArchitectureConfig, Task, architecture_stream, open_split
from ghn_jax.graphs import ArchGraph
from ghn_jax.networks import zoo

Named = tuple[int, NetworkArgs | nn.Module, ArchGraph]
"""Number within its list, arguments (or the model itself, if it has no cells) and graph."""

_log = logging.getLogger(__name__)

_VALIDATION_OFFSET = 1_000_000
"""Positions of the demo's held-out space that validate; those from 0 test."""


def evaluation_architectures(config: ArchitectureConfig, task: Task, split: str, count: int) -> Iterator[Named]:
    """The first `count` architectures of an evaluation split; those of the demo are the ones it keeps for testing.

    Training leaves out every network that is isomorphic to one of them, up to `held_out_count` of each split. With an
    `architecture_file` they come from it or the file beside it that holds the split (`split_file`), at the width that
    it gives them. ``predefined`` is ResNet-50, which has no cells and comes as a model of the zoo, and the ViT.

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
        reader = open_split(split_file(config.architecture_file, split), split, *task)
        for number in range(min(count, len(reader))):
            yield number, reader.args(number), reader.graph(number)
        return
    single = dataclasses.replace(config, meta_batch=1, max_nodes=1_000_000, num_architectures=None)
    if config.split != DEMO and split in SPLITS and count > held_out_count(split):
        _log.warning(
            "only the first %d architectures of %r are kept out of training, %d were asked for",
            held_out_count(split),
            split,
            count,
        )
    offset = _VALIDATION_OFFSET if config.split == DEMO and split == "val" else 0
    source = architecture_stream(single, task, split, seed=EVALUATION_SEED, position=offset, for_training=False)
    for number in range(count):
        batch = next(source)
        yield number, batch.args[0], batch.graphs[0]

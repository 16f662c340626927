"""Where the architectures of a run come from: drawn, or read from a dataset file."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.deepnets.demo_space import DemoStream
from ghn_jax.deepnets.files.reader import DatasetReader
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.stream import ArchitectureStream, MetaBatch, in_background
from ghn_jax.deepnets.widths import draw_width
from ghn_jax.graphs.arch_graph import ArchGraph

DEMO = "demo"


class Task(NamedTuple):
    """What networks are for: K classes, images of a height and width."""

    num_classes: int
    image_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class ArchitectureConfig:
    """Architectures that are trained on, drawn from DeepNets-1M in background processes.

    Attributes:
      split: of DeepNets-1M; "demo" is a small space of shallow, narrow networks.
      architecture_file: HDF5 file of the release to read instead (its JSON beside it); default: draw them.
      num_architectures: only so many architectures, over and over; default: no limit.
      meta_batch: networks per update.
      max_nodes: most nodes in a meta-batch; larger ones are passed over.
      demo_width: C of the demo's networks.
      sampler_workers: processes that draw architectures; 0 draws in the training process.
    """

    split: str = "train"
    architecture_file: pathlib.Path | None = None
    num_architectures: int | None = None
    meta_batch: int = 8
    max_nodes: int = 2_200
    demo_width: int = 16
    sampler_workers: int = 1


@dataclasses.dataclass
class FileStream(ArchitectureStream):
    """As `ArchitectureStream`, from a dataset file of the release, in a new random order every round.

    Attributes:
      path: the HDF5 file; its JSON lies beside it.
    """

    path: pathlib.Path = pathlib.Path()

    def _architecture(self, position: int) -> tuple[NetworkArgs, ArchGraph]:
        reader = open_split(self.path, self.split, self.num_classes, self.image_size)
        count = min(self.num_architectures or len(reader), len(reader))
        lap, place = divmod(position, count)
        index = int(np.random.default_rng((self.seed, 0, lap)).permutation(count)[place])
        args = draw_width(reader.args(index), np.random.default_rng((self.seed, 1, position)))
        return args, network_graph(args, f"{self.split}/{index}")


@functools.lru_cache(maxsize=2)
def open_split(path: pathlib.Path, split: str, num_classes: int, image_size: int) -> DatasetReader:
    """The reader of one split of a dataset file, opened once."""
    return DatasetReader(path, split, num_classes=num_classes, image_size=image_size)


def training_stream(config: ArchitectureConfig, task: Task, seed: int, position: int) -> Iterator[MetaBatch]:
    """Meta-batches from a position of the run's stream on, made by background processes if the config asks for them.

    Raises:
      ValueError: for an unknown split or a missing file.
    """
    stream = architecture_stream(config, task, config.split, seed=seed, position=position)
    if isinstance(stream, FileStream):
        len(open_split(stream.path, stream.split, *task))  # a missing file or split is told here, not by a worker
    if config.sampler_workers:
        return in_background(stream, config.sampler_workers)
    return stream


def architecture_stream(
    config: ArchitectureConfig, task: Task, split: str, *, seed: int, position: int
) -> ArchitectureStream:
    """The stream that a configuration asks for, from a position on."""
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

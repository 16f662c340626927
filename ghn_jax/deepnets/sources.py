"""Where the architectures of a run come from: drawn, or read from a dataset file."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.deepnets.demo_space import TEST_SHARE, DemoStream
from ghn_jax.deepnets.files.reader import DatasetReader
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.held_out import file_networks
from ghn_jax.deepnets.recipes import HEADS
from ghn_jax.deepnets.splits import SPLITS
from ghn_jax.deepnets.stream import ArchitectureStream, Made, MetaBatch, in_background
from ghn_jax.deepnets.widths import TRAINING_WIDTHS, draw_width
from ghn_jax.fields import COUNT, WORKERS, Range, check_fields, refuse_idle

DEMO = "demo"
PREDEFINED = "predefined"


_RANGES = {
    "num_architectures": COUNT,
    "meta_batch": Range(1, 10_000),
    "max_nodes": COUNT,
    "widths": Range(1, 8_192),
    "costly_above": Range(1, 10**15),
    "demo_width": Range(1, 8_192),
    "sampler_workers": WORKERS,
}

_OF_DRAWS = ("widths", "costly_above", "mislabelled")
"""Fields that change what is drawn for training."""

OPENING = 160
"""Meta-batches at the beginning of a run that are put into an order of few new layers at a time."""


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
      widths: C that networks are drawn with, in rising order; large networks get the first one, two or three of them.
      costly_above: networks that need more products than this for an image of 32 x 32 (at C = 32) are drawn less often,
        in inverse proportion to their products; half of the train split needs more than 62,000,000. Default: all are
        drawn alike.
      mislabelled: an experiment: labels are on rows of other nodes, as in most graphs of the release's files; what is
        evaluated on is right.
      demo_width: C of the demo's networks.
      sampler_workers: processes that draw architectures; 0 draws in the training process.
    """

    split: str = "train"
    architecture_file: pathlib.Path | None = None
    num_architectures: int | None = None
    meta_batch: int = 8
    max_nodes: int = 2_200
    widths: tuple[int, ...] = TRAINING_WIDTHS
    costly_above: int | None = None
    mislabelled: bool = False
    demo_width: int = 16
    sampler_workers: int = 1

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        if self.split not in (*SPLITS, DEMO):
            raise ValueError(f"unknown split {self.split!r}: choose one of {', '.join((*SPLITS, DEMO))}")
        check_demo(self)
        if self.split == DEMO or self.architecture_file is not None:
            refuse_idle(self, _OF_DRAWS, "for the demo and for files, which have draws of their own")
        if not self.widths or any(width % HEADS for width in self.widths):
            raise ValueError(f"widths must be multiples of {HEADS}, the heads of attention, got {self.widths}")
        if any(wider <= narrower for narrower, wider in itertools.pairwise(self.widths)):
            raise ValueError(f"widths must rise, got {self.widths}")

    @property
    def held_out_rule(self) -> str:
        """Which networks training leaves out."""
        if self.split == DEMO:
            return f"networks of the share (1 of {TEST_SHARE}, by the hash of their graphs) that the demo tests on"
        return "networks of evaluation splits"


def check_demo(config: Any) -> None:
    """Raises ValueError for a `split`, `architecture_file` and `demo_width` that do not go together."""
    if config.split != DEMO:
        refuse_idle(config, ("demo_width",), f"with split {config.split!r}")
    elif config.demo_width % HEADS:
        raise ValueError(f"demo_width must be a multiple of {HEADS}, the heads of attention, got {config.demo_width}")
    if config.split in (DEMO, PREDEFINED):
        refuse_idle(config, ("architecture_file",), f"with split {config.split!r}, which is in no file")


@dataclasses.dataclass
class FileStream(ArchitectureStream):
    """As `ArchitectureStream`, from a dataset file of the release, in a new random order every round.

    What is held out (`held_out.file_networks`) is replaced by a network of the file drawn at random.

    Attributes:
      path: the HDF5 file; its JSON lies beside it.
    """

    path: pathlib.Path = pathlib.Path()

    def _architecture(self, position: int) -> Made:
        reader = open_split(self.path, self.split, self.num_classes, self.image_size)
        count = min(self.num_architectures or len(reader), len(reader))
        lap, place = divmod(position, count)
        index = int(_file_order(count, self.seed, lap)[place])
        widths = np.random.default_rng((self.seed, 1, position))
        others = np.random.default_rng((self.seed, 2, position))
        for held_out in range(_MOST_HELD_OUT):
            args = draw_width(reader.args(index), widths)
            graph = network_graph(args, f"{self.split}/{index}")
            if not self.for_training or not file_networks(self.path).holds(args, graph):
                return Made(args, graph, held_out)
            index = int(others.integers(count))
        raise ValueError(
            f"{self.path}: {_MOST_HELD_OUT} networks of {self.split!r} in a row are networks of evaluation splits"
        )


_MOST_HELD_OUT = 1_000


@functools.lru_cache(maxsize=2)
def _file_order(count: int, seed: int, lap: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, lap)).permutation(count)


@functools.lru_cache(maxsize=2)
def open_split(path: pathlib.Path, split: str, num_classes: int, image_size: int) -> DatasetReader:
    """The reader of one split of a dataset file, opened once."""
    return DatasetReader(path, split, num_classes=num_classes, image_size=image_size)


def training_stream(config: ArchitectureConfig, task: Task, seed: int, position: int) -> Iterator[MetaBatch]:
    """Meta-batches from a position of the run's stream on, made by background processes if the config asks for them.

    Those of an endless stream of DeepNets-1M begin in an order that compiles little at first. A small set, or the small
    space of the demo, comes in its own order: nearly all of its layers are needed soon in any case.

    Raises:
      ValueError: for an unknown split or a missing file.
    """
    stream = architecture_stream(config, task, config.split, seed=seed, position=position)
    if config.num_architectures is None and config.split != DEMO:
        stream.opening = OPENING
    if isinstance(stream, FileStream):
        # A missing file or split is told here, not by a worker. The first round stays within itself.
        count = len(open_split(stream.path, stream.split, *task))
        stream.opening = min(stream.opening, count // stream.meta_batch)
    if config.sampler_workers:
        return in_background(stream, config.sampler_workers)
    return stream


def architecture_stream(
    config: ArchitectureConfig, task: Task, split: str, *, seed: int, position: int, for_training: bool = True
) -> ArchitectureStream:
    """The stream that a configuration asks for, from a position on.

    Args:
      config: of the architectures.
      task: classes and image size.
      split: to draw from; the demo has one space only, and `for_training` tells its parts apart.
      seed: of the stream.
      position: where it begins.
      for_training: whether networks of evaluation splits are left out; in the demo, False gives those kept for testing.
    """
    common: dict[str, Any] = {
        "meta_batch": config.meta_batch,
        "max_nodes": config.max_nodes,
        "num_architectures": config.num_architectures,
        "num_classes": task.num_classes,
        "image_size": task.image_size,
        "for_training": for_training,
    }
    if config.split == DEMO:
        return DemoStream("train", seed, position, width=config.demo_width, **common)
    if config.architecture_file is not None:
        return FileStream(split, seed, position, path=config.architecture_file, **common)
    if for_training:
        common |= {name: getattr(config, name) for name in _OF_DRAWS}
    return ArchitectureStream(split, seed, position, **common)

"""Architectures for training, drawn as they are needed: no data set file, and a position that can be saved."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterator

import numpy as np

from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.splits import split_rules
from ghn_jax.deepnets.widths import draw_width
from ghn_jax.deepnets.workers import process_pool
from ghn_jax.graphs.arch_graph import ArchGraph


@dataclasses.dataclass(frozen=True, slots=True)
class MetaBatch:
    """Architectures that share one training step.

    Attributes:
      start: position of its first architecture in the stream.
      end: position behind its last one: where a stream goes on after this meta-batch.
      args: arguments of each architecture, with the width drawn for this use.
      graphs: graph of each architecture.
    """

    start: int
    end: int
    args: tuple[NetworkArgs, ...]
    graphs: tuple[ArchGraph, ...]


@dataclasses.dataclass
class ArchitectureStream(Iterator[MetaBatch]):
    """Meta-batches of a split without end; what stands at a position depends on the other fields alone.

    A meta-batch with more nodes than allowed is passed over, as in the release, and counted. Streams may be pickled;
    a copy goes on from where it was made. Not safe to share between threads.

    Attributes:
      split: any split but ``predefined``.
      seed: of the data set, of the widths drawn for each use and of the order.
      position: architectures consumed so far; a stream made with the same ``position`` goes on exactly there.
      meta_batch: architectures of a meta-batch.
      max_nodes: nodes that a meta-batch may have in all.
      num_architectures: if given, only the first so many architectures of the split, in a new order every round.
      num_classes, image_size: of the task.
      passed_over: meta-batches passed over so far.
    """

    split: str = "train"
    seed: int = 0
    position: int = 0
    _: dataclasses.KW_ONLY
    meta_batch: int = 8
    max_nodes: int = 2_200
    num_architectures: int | None = None
    num_classes: int = 10
    image_size: int = 32
    passed_over: int = 0

    def __post_init__(self) -> None:
        if self.split == "predefined":
            raise ValueError("split 'predefined' is a list of two, not a stream; use sample_architecture")
        split_rules(self.split)
        if self.position < 0 or self.meta_batch < 1 or self.max_nodes < 1:
            raise ValueError(
                "position must not be negative, meta_batch and max_nodes must be at least 1, got "
                f"{self.position}, {self.meta_batch} and {self.max_nodes}"
            )
        if self.num_architectures is not None and self.num_architectures < self.meta_batch:
            raise ValueError(
                f"num_architectures {self.num_architectures} must be at least meta_batch {self.meta_batch}"
            )

    def __next__(self) -> MetaBatch:
        """The next meta-batch; raises ValueError if `max_nodes` lets hardly any through."""
        for _ in range(_MOST_PASSED_OVER):
            batch = self.at(self.position)
            self.position += self.meta_batch
            if batch is not None:
                return batch
            self.passed_over += 1
        raise ValueError(_too_tight(self))

    def at(self, position: int) -> MetaBatch | None:
        """The meta-batch that begins at a position, None if it has too many nodes; does not move the stream."""
        args, graphs, nodes = [], [], 0
        for place in range(position, position + self.meta_batch):
            one, graph = self._architecture(place)
            args.append(one)
            graphs.append(graph)
            nodes += graph.num_nodes
            if nodes > self.max_nodes:
                return None
        return MetaBatch(position, position + self.meta_batch, tuple(args), tuple(graphs))

    def _architecture(self, position: int) -> tuple[NetworkArgs, ArchGraph]:
        index = position
        if self.num_architectures is not None:
            lap, place = divmod(position, self.num_architectures)
            index = int(_order(self.num_architectures, self.seed, lap)[place])
        large_images = self.image_size > LARGE_IMAGE_ABOVE
        args, _ = sample_args(self.split, index, self.seed, large_images=large_images)
        args = args.replace(num_classes=self.num_classes, image_size=self.image_size)
        if not split_rules(self.split).evaluated:
            args = draw_width(args, _generator(self.seed, _WIDTHS, position))
        return args, network_graph(args, f"{self.split}/{index}")


def in_background(stream: ArchitectureStream, workers: int = 1, ahead: int = 8) -> Generator[MetaBatch, None, None]:
    """The meta-batches that `stream` would give, in the same order, made by other processes ahead of their use.

    Args:
      stream: moves on with every meta-batch that is handed out, so that its position may be saved at any time.
      workers: processes, started afresh (forking a process that runs JAX is not safe).
      ahead: meta-batches being made at a time.
    """
    with process_pool(workers) as pool:
        source = dataclasses.replace(stream)
        starts = itertools.count(stream.position, stream.meta_batch)
        waiting = collections.deque(pool.submit(source.at, start) for start in itertools.islice(starts, ahead))
        refused = 0
        try:
            while refused < _MOST_PASSED_OVER:
                batch = waiting.popleft().result()
                waiting.append(pool.submit(source.at, next(starts)))
                stream.position += stream.meta_batch
                if batch is None:
                    refused += 1
                    stream.passed_over += 1
                    continue
                refused = 0
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    raise ValueError(_too_tight(stream))


_MOST_PASSED_OVER = 1_000
_WIDTHS, _ORDERS = 1_000, 1_001
"""Keys of the random streams of widths and orders; those of the sampler are the numbers of the splits."""


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, number)))


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, lap: int) -> np.ndarray:
    return _generator(seed, _ORDERS, lap).permutation(count)


def _too_tight(stream: ArchitectureStream) -> str:
    return (
        f"{_MOST_PASSED_OVER} meta-batches of {stream.meta_batch} in a row have more than {stream.max_nodes} nodes; "
        "raise max_nodes or lower meta_batch"
    )

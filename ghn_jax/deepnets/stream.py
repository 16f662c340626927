"""Architectures for training, drawn as they are needed: no data set file, and a position that can be saved."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.held_out import evaluation_networks
from ghn_jax.deepnets.mislabelled import mislabelled
from ghn_jax.deepnets.opening import fewest_new_first, layer_uses
from ghn_jax.deepnets.sampler import draws
from ghn_jax.deepnets.splits import split_rules
from ghn_jax.deepnets.widths import TRAINING_WIDTHS, counted_products, draw_width
from ghn_jax.deepnets.workers import process_pool
from ghn_jax.graphs.arch_graph import ArchGraph


@dataclasses.dataclass(frozen=True, slots=True)
class MetaBatch:
    """Architectures that share one training step.

    Attributes:
      start: position in the stream at which it begins.
      end: position behind its last one: where a stream goes on after this meta-batch.
      args: arguments of each architecture, with the width drawn for this use.
      graphs: graph of each architecture.
      passed_over: meta-batches with too many nodes between the meta-batch before and this one.
      held_out: draws since the meta-batch before that were not used because they are kept for evaluation.
    """

    start: int
    end: int
    args: tuple[NetworkArgs, ...]
    graphs: tuple[ArchGraph, ...]
    passed_over: int = 0
    held_out: int = 0


class Made(NamedTuple):
    """One architecture of a stream, and how many draws before it were held out for evaluation."""

    args: NetworkArgs
    graph: ArchGraph
    held_out: int


class Found(NamedTuple):
    """What stands at a position: a meta-batch, or None if it has too many nodes; and how many draws were held out."""

    batch: MetaBatch | None
    held_out: int


@dataclasses.dataclass
class ArchitectureStream(Iterator[MetaBatch]):
    """Meta-batches of a split without end; what stands at a position depends on the other fields alone.

    A meta-batch with more nodes than allowed is passed over, as in the release. For training, an architecture that is
    isomorphic to one of an evaluation split (`held_out.evaluation_networks`) is drawn again. Both are counted, here and
    in the meta-batches. Streams may be pickled; a copy goes on from where it was made. Not for several threads.

    The first meta-batches may come in an order in which they share layers (see `opening`): each then stands at the
    position of another of them.

    Attributes:
      split: any split but ``predefined``.
      seed: of the data set, of the widths drawn for each use and of the order.
      position: architectures consumed so far; a stream made with the same ``position`` goes on exactly there.
      meta_batch: architectures of a meta-batch.
      max_nodes: nodes that a meta-batch may have in all.
      num_architectures: if given, only the first so many architectures of the split, in a new order every round.
      num_classes, image_size: of the task.
      widths: C that networks for training are drawn with, as `draw_width` takes them.
      costly_above: networks that need more products than this for an image of 32 x 32 (`count.product_count` at C = 32)
        are drawn less often, in inverse proportion to their products; None draws all alike.
      mislabelled: whether labels are put on rows of other nodes (`mislabelled.mislabelled`).
      for_training: whether networks of evaluation splits are left out of the splits that training draws from
        (``train`` and ``search``).
      opening: of so many meta-batches at the beginning of the stream, passed over ones included, those come first that
        need the fewest new layers; none comes more than so many meta-batches later than it was drawn.
      passed_over: meta-batches passed over so far.
      held_out: draws left out so far because they are networks of evaluation splits.
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
    widths: tuple[int, ...] = TRAINING_WIDTHS
    costly_above: int | None = None
    mislabelled: bool = False
    for_training: bool = True
    opening: int = 0
    passed_over: int = 0
    held_out: int = 0
    _told: tuple[int, int] = dataclasses.field(default=(0, 0), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.split == "predefined":
            raise ValueError("split 'predefined' is a list of two, not a stream; use sample_architecture")
        split_rules(self.split)
        if min(self.position, self.opening) < 0 or min(self.meta_batch, self.max_nodes) < 1:
            raise ValueError(
                "position and opening must not be negative, meta_batch and max_nodes must be at least 1, got "
                f"{self.position}, {self.opening}, {self.meta_batch} and {self.max_nodes}"
            )
        if self.num_architectures is not None and self.num_architectures < self.meta_batch:
            raise ValueError(
                f"num_architectures {self.num_architectures} must be at least meta_batch {self.meta_batch}"
            )
        self._told = (self.passed_over, self.held_out)

    def __next__(self) -> MetaBatch:
        """The next meta-batch; raises ValueError if `max_nodes` lets hardly any through."""
        for _ in range(_MOST_PASSED_OVER):
            batch = self.advance(self.at(self.position))
            if batch is not None:
                return batch
        raise ValueError(_too_tight(self))

    def at(self, position: int) -> Found:
        """What stands at a position; does not move the stream."""
        place, within = divmod(position, self.meta_batch)
        if within or place >= self.opening:
            return self._drawn(position)
        found = self._drawn(self.meta_batch * _opening_order(type(self), self._what())[place])
        if found.batch is None:
            return found
        return found._replace(batch=dataclasses.replace(found.batch, start=position, end=position + self.meta_batch))

    def opening_order(self) -> tuple[int, ...]:
        """Which of the meta-batches at the beginning stands at which of their places; fixed if it is passed over."""
        order, needs = list(range(self.opening)), dict[int, frozenset]()
        for place in order:
            batch = self._drawn(place * self.meta_batch).batch
            if batch is not None:
                needs[place] = frozenset().union(*map(layer_uses, batch.args))
        places = list(needs)
        for place, item in zip(places, fewest_new_first(list(needs.values())), strict=True):
            order[place] = places[item]
        return tuple(order)

    def _what(self) -> tuple[tuple[str, Any], ...]:
        """Fields that decide what stands where."""
        fields = (field.name for field in dataclasses.fields(self) if field.init)
        return tuple((name, getattr(self, name)) for name in fields if name not in _STATE)

    def _drawn(self, position: int) -> Found:
        """The meta-batch of the architectures from a position on."""
        args, graphs, nodes, held_out = [], [], 0, 0
        for place in range(position, position + self.meta_batch):
            made = self._architecture(place)
            args.append(made.args)
            graphs.append(made.graph)
            held_out += made.held_out
            nodes += made.graph.num_nodes
            if nodes > self.max_nodes:
                return Found(None, held_out)
        return Found(MetaBatch(position, position + self.meta_batch, tuple(args), tuple(graphs)), held_out)

    def advance(self, found: Found) -> MetaBatch | None:
        """Moves behind what stands at the stream's position and counts it; its meta-batch with the counts, or None."""
        self.position += self.meta_batch
        self.held_out += found.held_out
        if found.batch is None:
            self.passed_over += 1
            return None
        passed_over, held_out = self._told
        self._told = (self.passed_over, self.held_out)
        return dataclasses.replace(
            found.batch, passed_over=self.passed_over - passed_over, held_out=self.held_out - held_out
        )

    def _architecture(self, position: int) -> Made:
        index = position
        if self.num_architectures is not None:
            lap, place = divmod(position, self.num_architectures)
            index = int(_order(self.num_architectures, self.seed, lap)[place])
        rules = split_rules(self.split)
        large_images = self.image_size > LARGE_IMAGE_ABOVE
        widths = _generator(self.seed, _WIDTHS, position)
        candidates = (args for args, _ in draws(self.split, index, self.seed, large_images=large_images))
        if self.costly_above is not None:
            costs, most = _generator(self.seed, _COSTS, index), self.costly_above
            candidates = (args for args in candidates if costs.random() * counted_products(args) <= most)
        held_out = 0
        while True:
            args = next(candidates)
            args = args.replace(num_classes=self.num_classes, image_size=self.image_size)
            if not rules.evaluated:
                args = draw_width(args, widths, self.widths)
            graph = network_graph(args, f"{self.split}/{index}")
            if rules.evaluated or not self.for_training or not evaluation_networks().holds(args, graph):
                return Made(args, mislabelled(graph) if self.mislabelled else graph, held_out)
            held_out += 1


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
                found = waiting.popleft().result()
                waiting.append(pool.submit(source.at, next(starts)))
                batch = stream.advance(found)
                if batch is None:
                    refused += 1
                    continue
                refused = 0
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    raise ValueError(_too_tight(stream))


_MOST_PASSED_OVER = 1_000
_STATE = ("position", "passed_over", "held_out")
_WIDTHS, _ORDERS, _COSTS = 1_000, 1_001, 1_002
"""Keys of the random streams of widths, orders and costs; those of the sampler are the numbers of the splits."""


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, number)))


@functools.lru_cache(maxsize=2)
def _opening_order(stream: type[ArchitectureStream], fields: tuple[tuple[str, Any], ...]) -> tuple[int, ...]:
    """Kept by a process for all copies of a stream that it is sent."""
    return stream(**dict(fields)).opening_order()


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, lap: int) -> np.ndarray:
    return _generator(seed, _ORDERS, lap).permutation(count)


def _too_tight(stream: ArchitectureStream) -> str:
    return (
        f"{_MOST_PASSED_OVER} meta-batches of {stream.meta_batch} in a row have more than {stream.max_nodes} nodes; "
        "raise max_nodes or lower meta_batch"
    )

"""Accuracy of predicted parameters on architectures that were never trained on, beside random initialisation."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import numpy as np

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.forward import Network, network_of
from ghn_jax.fields import WORKERS, Range, check_number
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.hypernet import GHN, predict_params
from ghn_jax.images import Batch
from ghn_jax.keys import RANDOM_INITIALISATION, named_key
from ghn_jax.networks import network_plan
from ghn_jax.networks.random_init import RandomInit, he_initialisation
from ghn_jax.networks.runner import Runner

Protocol = Literal["batch", "reestimated"]
"""Batch normalisation by the statistics of the test batch, or by those re-estimated over training batches."""

Item = TypeVar("Item")
Result = TypeVar("Result")

TopK = tuple[float, float]
"""Top-1 and top-5 accuracy in [0, 1]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one architecture in [0, 1].

    Attributes:
      name: of the architecture.
      nodes: of its graph.
      params: weights predicted.
      top1, top5: with predicted parameters.
      random_top1, random_top5: with random initialisation; None if that was not asked for.
      seconds: that the prediction took, programs compiled.
    """

    name: str
    nodes: int
    params: int
    top1: float
    top5: float
    random_top1: float | None
    random_top5: float | None
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores architectures on the same image batches.

    Attributes:
      ghn: the hypernetwork.
      variables: its weights, on one device.
      batches: test images and labels, gone through once for every network: a sequence, or `RepeatedBatches`.
      runner: runs the networks.
      protocol: of batch normalisation.
      training_images: batches of images (B, H, W, 3) for re-estimated statistics, gone through once for every network;
        unused with the protocol "batch".
      seed: of random initialisation; None leaves that comparison out.
      random_init: rule of random initialisation.
      threads: batches that a network classifies side by side.
    """

    ghn: GHN
    variables: Any
    batches: Iterable[Batch]
    runner: Runner
    protocol: Protocol = "batch"
    training_images: Iterable[jax.Array] = ()
    seed: int | None = 0
    random_init: RandomInit = he_initialisation
    threads: int = 2

    def __post_init__(self) -> None:
        check_number("threads", self.threads, Range(1, WORKERS.high))
        if next(iter(self.batches), None) is None:
            raise ValueError("evaluation needs at least one batch of test images; lower the batch size")

    def score(self, number: int, args: NetworkArgs | nn.Module, graph: ArchGraph) -> Score:
        """Score of one architecture; `number` picks its random initialisation."""
        predict_params(self.ghn, self.variables, [graph])  # compiles what is new, so that the time below is that of use
        start = time.perf_counter()
        (predicted,) = jax.block_until_ready(predict_params(self.ghn, self.variables, [graph]))
        seconds = time.perf_counter() - start
        top1, top5 = self._accuracy(args, predicted)
        random = (None, None)
        if self.seed is not None:
            key = jax.random.fold_in(named_key(self.seed, RANDOM_INITIALISATION), number)
            random = self._accuracy(args, self.random_init(graph, key))
        return Score(graph.name, graph.num_nodes, graph.num_params, top1, top5, *random, seconds)

    def scores(self, architectures: Iterable[tuple[int, NetworkArgs | nn.Module, ArchGraph]]) -> Iterator[Score]:
        """Scores in order; layers of the next architecture are compiled meanwhile."""
        images, _ = next(iter(self.batches))
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for item in architectures:
                if self.protocol == "batch" and isinstance(item[1], NetworkArgs):
                    pool.submit(self.runner.warm, [network_plan(item[1])], images.shape, backward=False, train=False)
                if waiting is not None:
                    yield self.score(*waiting)
                waiting = item
            if waiting is not None:
                yield self.score(*waiting)

    def _accuracy(self, args: NetworkArgs | nn.Module, params: Mapping[Path, jax.Array]) -> TopK:
        network = network_of(args, params, self.runner)
        statistics = network.statistics(self.training_images) if self.protocol == "reestimated" else None

        return mean_top_k(network, statistics, self.batches, self.threads)


def mean_top_k(network: Network, statistics: Any, batches: Iterable[Batch], threads: int = 1) -> TopK:
    """Accuracy of a network over all images.

    Args:
      network: the network.
      statistics: of batch normalisation, for `Network.logits_given`; None for those of each batch.
      batches: images and labels.
      threads: batches that are classified side by side, after the first.
    """

    def of_batch(batch: Batch) -> tuple[int, TopK]:
        images, labels = batch
        logits = network.logits(images) if statistics is None else network.logits_given(images, statistics)
        return len(labels), top_k(np.asarray(logits), np.asarray(labels))

    rest = iter(batches)
    found = [of_batch(batch) for batch in itertools.islice(rest, 1)]  # alone: it may compile
    found += _side_by_side(of_batch, rest, threads) if threads > 1 else map(of_batch, rest)
    counts, shares = zip(*found, strict=True)
    top1, top5 = np.average(shares, axis=0, weights=counts).tolist()
    return top1, top5


def _side_by_side(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of each item, in order; no more items are taken ahead than are worked on."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque[Future[Result]]()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def top_k(logits: np.ndarray, labels: np.ndarray) -> TopK:
    """Top-1 and top-5 accuracy for logits (B, K) and labels (B,); logits that are not finite are wrong."""
    own = logits[np.arange(len(labels)), labels]
    better = (logits > own[:, None]).sum(axis=1)
    # Equal logits share the places they take, so that a constant network scores as chance does.
    equal = (logits == own[:, None]).sum(axis=1)
    usable = np.isfinite(logits).all(axis=1)

    def within(k: int) -> float:
        share = np.clip((k - better) / np.maximum(equal, 1), 0, 1)
        return float(np.where(usable, share, 0).mean())

    return within(1), within(min(5, logits.shape[1]))

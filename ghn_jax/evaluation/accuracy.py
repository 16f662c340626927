"""Accuracy of predicted parameters on architectures that were never trained on, beside random initialisation."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.bn_statistics import estimate_statistics, forward_with_statistics
from ghn_jax.evaluation.whole_models import model_logits
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.hypernet import GHN, predict_params
from ghn_jax.images import Batch
from ghn_jax.keys import HE_INITIALISATION, named_key
from ghn_jax.networks import network_plan
from ghn_jax.networks.random_init import he_initialisation
from ghn_jax.networks.runner import Runner

Protocol = Literal["batch", "reestimated"]
"""Batch normalisation by the statistics of the test batch, or by those re-estimated over training batches."""

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
      he_top1, he_top5: with random initialisation; None if that was not asked for.
      seconds: that the prediction took, programs compiled.
    """

    name: str
    nodes: int
    params: int
    top1: float
    top5: float
    he_top1: float | None
    he_top5: float | None
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores architectures on a fixed list of image batches.

    Attributes:
      ghn: the hypernetwork.
      variables: its weights, on one device.
      batches: test images and labels.
      runner: runs the networks.
      protocol: of batch normalisation.
      training_images: images (B, H, W, 3) for re-estimated statistics; unused with the protocol "batch".
      seed: of random initialisation; None leaves that comparison out.
    """

    ghn: GHN
    variables: Any
    batches: Sequence[Batch]
    runner: Runner
    protocol: Protocol = "batch"
    training_images: Sequence[jax.Array] = ()
    seed: int | None = 0

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("evaluation needs at least one batch of test images; lower the batch size")

    def score(self, number: int, args: NetworkArgs | nn.Module, graph: ArchGraph) -> Score:
        """Score of one architecture; `number` picks its random initialisation."""
        predict_params(self.ghn, self.variables, [graph])  # compiles what is new, so that the time below is that of use
        start = time.perf_counter()
        (predicted,) = jax.block_until_ready(predict_params(self.ghn, self.variables, [graph]))
        seconds = time.perf_counter() - start
        top1, top5 = self._accuracy(args, predicted)
        he = (None, None)
        if self.seed is not None:
            key = jax.random.fold_in(named_key(self.seed, HE_INITIALISATION), number)
            he = self._accuracy(args, he_initialisation(graph, key))
        return Score(graph.name, graph.num_nodes, graph.num_params, top1, top5, *he, seconds)

    def scores(self, architectures: Iterable[tuple[int, NetworkArgs | nn.Module, ArchGraph]]) -> Iterator[Score]:
        """Scores in order; layers of the next architecture are compiled meanwhile."""
        shape = self.batches[0][0].shape
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for item in architectures:
                if self.protocol == "batch" and isinstance(item[1], NetworkArgs):
                    pool.submit(self.runner.warm, [network_plan(item[1])], shape, backward=False, train=False)
                if waiting is not None:
                    yield self.score(*waiting)
                waiting = item
            if waiting is not None:
                yield self.score(*waiting)

    def _accuracy(self, args: NetworkArgs | nn.Module, params: Mapping[Path, jax.Array]) -> TopK:
        if isinstance(args, nn.Module):
            training = self.training_images if self.protocol == "reestimated" else ()
            logits = model_logits(args, params, [images for images, _ in self.batches], training)
        elif self.protocol == "batch":
            plan = network_plan(args)
            logits = [self.runner.forward(plan, params, images) for images, _ in self.batches]
        else:
            stats = estimate_statistics(args, params, self.training_images)
            logits = [forward_with_statistics(args, params, images, stats) for images, _ in self.batches]
        return top_k(np.concatenate(logits), np.concatenate([labels for _, labels in self.batches]))


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

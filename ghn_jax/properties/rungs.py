"""The ladder: scores that rank the networks of a ground truth, from counting weights to fitted regressors."""

import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.deepnets.sources import DEMO, ArchitectureConfig, Task
from ghn_jax.evaluation.accuracy import Evaluator
from ghn_jax.evaluation.architectures import Named, evaluation_architectures
from ghn_jax.evaluation.score_table import QUESTION_FILE
from ghn_jax.graphs import ArchGraph
from ghn_jax.hypernet import PretrainedGHN, embed
from ghn_jax.images import eval_batches, load_images, train_batches
from ghn_jax.networks.random_init import he_initialisation
from ghn_jax.networks.runner import Runner
from ghn_jax.properties.neural_predictor import NeuralPredictor
from ghn_jax.properties.ranking import Ranked, rank
from ghn_jax.properties.regressors import Boosting, SupportVectors
from ghn_jax.properties.truth import TRUTH_FILE, read_truth
from ghn_jax.properties.zero_cost import gradient_norm, jacobian_covariance, snip, synflow
from ghn_jax.runs.progress import Reporter
from ghn_jax.training import Given, NetTrainConfig
from ghn_jax.training.study import train_from_starts

IMAGES = 1_000
"""Validation images that predicted parameters are tried on."""


def split_networks(split: str, count: int, demo_width: int, task: Task) -> Iterator[Named]:
    """Networks of a split of DeepNets-1M, or of the demo's held-out networks."""
    source = ArchitectureConfig(split, demo_width=demo_width) if split == DEMO else ArchitectureConfig(split)
    yield from evaluation_architectures(source, task, "test" if split == DEMO else split, count)


class KnownNetworks:
    """A ground truth with its images and the graphs of its networks.

    Args:
      folder: of `make_truth`.
      data_dir: folder of prepared tensorflow-datasets sets.

    Raises:
      ValueError: for a folder without ground truth; names it.
    """

    def __init__(self, folder: pathlib.Path, data_dir: str | None = None) -> None:
        self.networks = read_truth(folder / TRUTH_FILE)
        if not self.networks:
            raise ValueError(f"{folder} holds no ground truth: make it by `properties.py truth --out={folder}`")
        asked = json.loads((folder / QUESTION_FILE).read_text())
        self.images = load_images(asked["dataset"], asked["image_size"], data_dir)
        task = Task(self.images.num_classes, self.images.image_size)
        drawn = split_networks(asked["split"], max(one.number for one in self.networks) + 1, asked["demo_width"], task)
        by_name = {item[2].name: item for item in drawn}
        self.items = [by_name[one.name] for one in self.networks]
        self.args = [args for _, args, _ in self.items if isinstance(args, NetworkArgs)]
        self.graphs: list[ArchGraph] = [graph for *_, graph in self.items]
        self.clean = [one.clean for one in self.networks]
        self.batch_size = asked["batch_size"]
        batches = train_batches(self.images, self.batch_size, asked["seed"])
        self.steps_per_epoch, self.first_batch = batches.steps_per_epoch, batches.batch(0)
        batches.close()


def rungs(
    fit: KnownNetworks,
    test: KnownNetworks,
    ghns: Mapping[str, PretrainedGHN],
    folder: pathlib.Path,
    *,
    steps: Sequence[int] = (10, 50),
    reporter: Reporter | None = None,
) -> Iterator[Ranked]:
    """How well each score ranks the accuracy of test networks.

    Args:
      fit: what regressors are fitted on.
      test: what is ranked.
      ghns: hypernetworks by name, whose embeddings and predictions are tried; the first starts short trainings.
      folder: of short trainings.
      steps: updates of short trainings; each is a score.
      reporter: where lines go.
    """
    yield rank("parameters", [one.params for one in test.networks], test.clean)
    yield rank("products", [one.products for one in test.networks], test.clean)
    yield from _zero_cost(test)
    if test.steps_per_epoch < test.networks[0].steps[-1]:
        after = [float(np.interp(test.steps_per_epoch, one.steps, one.top1)) for one in test.networks]
        yield rank("one epoch of SGD", after, test.clean)
    yield _timed("NeuPred", test, lambda: NeuralPredictor().fit(fit.graphs, fit.clean).predict(test.graphs))
    for name, ghn in ghns.items():
        features = embed(fit.graphs, ghn)
        for label, regressor in (("SVR", SupportVectors()), ("boosting", Boosting())):
            fitted = regressor.fit(features, np.array(fit.clean))
            predict = lambda ghn=ghn, fitted=fitted: fitted.predict(embed(test.graphs, ghn))  # noqa: E731
            yield _timed(f"{label} on {name}", test, predict)
        yield _timed(f"predicted by {name}", test, lambda ghn=ghn: _predicted(test, ghn))
    for name, ghn in list(ghns.items())[:1]:
        yield from _short_trainings(test, name, ghn, steps, folder, reporter=reporter)


def _timed(name: str, test: KnownNetworks, scores: Callable[[], Sequence[float] | np.ndarray]) -> Ranked:
    start = time.perf_counter()
    found = [float(value) for value in scores()]
    return rank(name, found, test.clean, seconds=(time.perf_counter() - start) / len(found))


def _zero_cost(test: KnownNetworks) -> Iterator[Ranked]:
    batch, runner = test.first_batch, Runner()
    starts = [he_initialisation(graph, jax.random.key(number)) for number, graph in enumerate(test.graphs)]
    pairs = list(zip(test.args, starts, strict=True))
    yield _timed("gradient norm", test, lambda: [gradient_norm(*pair, batch, runner) for pair in pairs])
    yield _timed("snip", test, lambda: [snip(*pair, batch, runner) for pair in pairs])
    yield _timed("synflow", test, lambda: [synflow(*pair, runner) for pair in pairs])
    yield _timed("Jacobian", test, lambda: [jacobian_covariance(*pair, batch, runner) for pair in pairs])


def _predicted(test: KnownNetworks, ghn: PretrainedGHN) -> list[float]:
    batches = list(eval_batches(test.images, "val", 64, IMAGES))
    evaluator = Evaluator(ghn.ghn, ghn.variables, batches, Runner(), seed=None)
    return [score.top1 for score in evaluator.scores(test.items)]


def _short_trainings(
    test: KnownNetworks,
    name: str,
    ghn: PretrainedGHN,
    steps: Sequence[int],
    folder: pathlib.Path,
    *,
    reporter: Reporter | None,
) -> Iterator[Ranked]:
    config = NetTrainConfig(
        steps=max(steps), curve=tuple(steps), batch_size=test.batch_size, image_split="val", test_images=IMAGES
    )
    asked: dict[str, Any] = {"ghn": name, "networks": [one.name for one in test.networks]}
    start = time.perf_counter()
    curves = train_from_starts(
        test.items,
        ("predicted",),
        test.images,
        config,
        folder,
        given=Given(ghn),
        asked=asked,
        keep_weights=False,
        reporter=reporter,
    )["predicted"]
    seconds = (time.perf_counter() - start) / len(curves)
    for number in sorted(steps):
        scores = [curve.top1[curve.steps.index(number)] for curve in curves]
        yield rank(f"predicted + {number} updates", scores, test.clean, seconds=seconds * number / config.steps)

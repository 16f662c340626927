"""`evaluate`: accuracy of a hypernetwork's predictions on a split of architectures, in one call."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.deepnets.sources import DEMO, ArchitectureConfig, Task, check_demo
from ghn_jax.evaluation.accuracy import Evaluator, Protocol, Score
from ghn_jax.evaluation.architectures import Named, evaluation_architectures
from ghn_jax.evaluation.repeated import RepeatedBatches, training_images
from ghn_jax.evaluation.score_table import SCORES_FILE, claim_folder, read_scores, score_all, summary_table
from ghn_jax.fields import COUNT, SEED, Range, check_fields, refuse_idle
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.canonical import canonical_hash
from ghn_jax.hypernet.api import GHNSource, resolve_ghn
from ghn_jax.images import ImageSet, ImageStream, eval_batches
from ghn_jax.networks.random_init import RANDOM_INITS, he_initialisation
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.lock import folder_lock

Split = Literal["val", "test", "wide", "deep", "dense", "bnfree", "search", "predefined", "demo"]

_RANGES = {
    "architectures": COUNT,
    "demo_width": Range(1, 8_192),
    "images": COUNT,
    "batch_size": Range(1, 1_000_000),
    "bn_batches": COUNT,
    "seed": SEED,
}


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Attributes:
      split: of DeepNets-1M (val, test, wide, deep, dense, bnfree, search, predefined), or the demo's held-out networks.
      architectures: how many of them.
      architecture_file: HDF5 file of the release to take them from; default: draw them.
      demo_width: C of the demo's networks.
      images: test images, evenly spread; default: all.
      image_split: of the image set.
      batch_size: images B that a network normalises over.
      bn: statistics of batch normalisation: of the test batch, or re-estimated over training batches.
      bn_batches: training batches that statistics are re-estimated over.
      noise: the noise test.
      random_init: initialisation to compare with: he (He et al., normal), torch (PyTorch's own, uniform, which the
        paper's baselines start from), or none.
      seed: of random initialisation, noise and training batches.
    """

    split: Split = "test"
    architectures: int = 500
    architecture_file: pathlib.Path | None = None
    demo_width: int = 16
    images: int | None = None
    image_split: Literal["val", "test"] = "test"
    batch_size: int = 64
    bn: Protocol = "batch"
    bn_batches: int = 200
    noise: bool = False
    random_init: Literal["he", "torch", "none"] = "he"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        check_demo(self)
        if self.bn == "batch":
            refuse_idle(self, ("bn_batches",), "with bn 'batch'")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
      scores: one an architecture, in order.
      table: mean, standard error and maximum as text.
    """

    scores: tuple[Score, ...]
    table: str


def evaluate(
    ghn: GHNSource,
    images: ImageSet | ImageStream,
    config: EvaluationConfig | None = None,
    *,
    architectures: Sequence[tuple[NetworkArgs | nn.Module, ArchGraph]] | None = None,
    folder: pathlib.Path | None = None,
) -> Evaluation:
    """Accuracy of predicted parameters on architectures, without any training, beside random initialisation.

    Args:
      ghn: a loaded hypernetwork, a source for `load_ghn`, or None for the packaged default.
      images: image set, of as many classes as the hypernetwork was trained for.
      config: how to evaluate; the default is 500 networks of ``test`` on all test images, BN by batch statistics.
      architectures: networks to evaluate instead of a split: arguments, or a linen model, each with its graph.
      folder: keeps every score as soon as it is there; the same call goes on where it stopped.

    Returns:
      Scores and a table.

    Raises:
      ValueError: for an unknown split, a missing file, two architectures of one name, too few images, or a folder that
        holds scores of something else or is in use.
    """
    config = config or EvaluationConfig()
    loaded = resolve_ghn(ghn)
    chosen = _given(architectures) if architectures is not None else _of_split(config, images)
    evaluator = Evaluator(
        ghn=loaded.ghn,
        variables=loaded.variables,
        batches=RepeatedBatches(
            lambda: eval_batches(
                images, config.image_split, config.batch_size, config.images, config.seed if config.noise else None
            )
        ),
        runner=Runner(),
        protocol=config.bn,
        training_images=RepeatedBatches(
            lambda: training_images(images, config.batch_size, config.seed, config.bn_batches)
        ),
        seed=None if config.random_init == "none" else config.seed,
        random_init=RANDOM_INITS.get(config.random_init, he_initialisation),
    )
    if folder is None:
        scores = list(evaluator.scores(chosen))
    else:
        asked = question(config, loaded.variables, images, chosen if architectures is not None else None)
        with folder_lock(folder):
            claim_folder(folder, asked, answered=bool(read_scores(folder / SCORES_FILE)))
            scores = score_all(evaluator, chosen, folder / SCORES_FILE)
    table = summary_table(scores, 1 / images.num_classes, config.random_init, skipped=images.skipped)
    return Evaluation(tuple(scores), table)


def question(
    config: EvaluationConfig, variables: Any, images: ImageSet | ImageStream, given: Sequence[Named] | None
) -> dict[str, Any]:
    """What scores depend on: the configuration but for the number of architectures, the images, digests of the weights.

    Args:
      config: of the evaluation.
      variables: weights of the hypernetwork.
      images: the set.
      given: architectures that are evaluated instead of a split.
    """
    asked = {name: value for name, value in dataclasses.asdict(config).items() if name != "architectures"}
    asked = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in asked.items()}
    if given is not None:
        graphs = json.dumps([(graph.name, canonical_hash(graph)) for _, _, graph in given])
        asked["split"] = f"given, {hashlib.sha256(graphs.encode()).hexdigest()[:16]}"
    if images.skipped:
        asked["pictures left out"] = images.skipped
    return {**asked, "dataset": images.name, "image_size": images.image_size, "weights": digest(variables)}


def digest(variables: Any) -> str:
    """16 hexadecimal digits that tell weights apart."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


def _of_split(config: EvaluationConfig, images: ImageSet | ImageStream) -> list[Named]:
    source = ArchitectureConfig(
        split=config.split, architecture_file=config.architecture_file, demo_width=config.demo_width
    )
    task = Task(images.num_classes, images.image_size)
    split = "test" if config.split == DEMO else config.split
    return list(evaluation_architectures(source, task, split, config.architectures))


def _given(architectures: Sequence[tuple[NetworkArgs | nn.Module, ArchGraph]]) -> list[Named]:
    names = [graph.name for _, graph in architectures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"architectures need names of their own, {twice[0]!r} comes {names.count(twice[0])} times")
    return [(number, model, graph) for number, (model, graph) in enumerate(architectures)]

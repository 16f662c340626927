"""Accuracy of predicted parameters on unseen architectures, without any training, beside He initialisation.

What the paper reports for GHN-2 (Knyazev et al., NeurIPS 2021, Table 3: CIFAR-10, top-1 %, mean +- standard error):

| ID-test | max | WIDE | DEEP | DENSE | BN-FREE |
|---|---|---|---|---|---|
| 66.9 +- 0.3 | 77.1 | 64.0 +- 1.1 | 60.5 +- 1.2 | 65.8 +- 0.7 | 36.8 +- 1.5 |

  python experiments/eval_ghn.py --ghn=ppuda:ghn2_cifar10 --dataset=cifar10 --data-dir=DIR --split=test
  python experiments/eval_ghn.py --ghn=runs/ghn2-cifar10-0 --dataset=cifar10 --data-dir=DIR --bn=reestimated

Cost: about 2 minutes for each network of average size on 10,000 images and two CPU cores, seconds on a GPU. Every
architecture is one line of a JSON lines file; the same command goes on where it stopped.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

import dataclasses
import hashlib
import pathlib
import sys
from typing import Any, Literal

import jax
import numpy as np
import tyro
from terminal import Terminal, show_log

from ghn_jax.evaluation.accuracy import Evaluator, Protocol
from ghn_jax.evaluation.architectures import evaluation_architectures
from ghn_jax.evaluation.score_table import claim_folder, score_all, summary_table
from ghn_jax.images import eval_batches, load_images, train_batches
from ghn_jax.metatraining.command import use_compilation_cache
from ghn_jax.metatraining.config import ArchitectureConfig, Task, to_json
from ghn_jax.metatraining.loop import load_trained
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.pictures import histogram_picture


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate.

    Attributes:
      ghn: folder of a run, a checkpoint of ours or of the release, or a name such as ppuda:ghn2_cifar10.
      split: of DeepNets-1M (val, test, wide, deep, dense, bnfree, search, predefined), or the demo's held-out networks.
      architectures: how many of them.
      architecture_file: HDF5 file of the release to take them from; default: draw them.
      demo_width: C of the demo's networks.
      dataset: image set; see meta_train.
      data_dir: folder of prepared tensorflow-datasets sets.
      image_size: height and width; default: the set's own.
      images: test images, evenly spread; default: all.
      image_split: of the image set.
      batch_size: images B that a network normalises over.
      bn: statistics of batch normalisation: of the test batch, or re-estimated over training batches.
      bn_batches: training batches that statistics are re-estimated over.
      noise: the noise test.
      he: whether He initialisation of the same networks is evaluated too.
      seed: of He initialisation, noise and training batches.
      out: folder of results; default: runs/eval/GHN-SPLIT-DATASET-BN.
      compilation_cache: folder of compiled programs; "" keeps nothing.
    """

    ghn: str
    split: Literal["val", "test", "wide", "deep", "dense", "bnfree", "search", "predefined", "demo"] = "test"
    architectures: int = 500
    architecture_file: pathlib.Path | None = None
    demo_width: int = 16
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    images: int | None = None
    image_split: Literal["val", "test"] = "test"
    batch_size: int = 64
    bn: Protocol = "batch"
    bn_batches: int = 200
    noise: bool = False
    he: bool = True
    seed: int = 0
    out: pathlib.Path | None = None
    compilation_cache: str = "~/.cache/ghn_jax/compiled"

    @property
    def folder(self) -> pathlib.Path:
        """Folder of results."""
        name = self.ghn.rstrip("/").replace("/", "_").replace(":", "_")
        parts = [name, self.split, self.dataset.replace("/", "_"), self.bn] + ["noise"] * self.noise
        return self.out or pathlib.Path("runs") / "eval" / "-".join(parts)


def question(options: Options, variables: Any) -> dict[str, Any]:
    """What scores depend on: options, and a digest of the hypernetwork's weights."""
    free = ("architectures", "out", "compilation_cache", "data_dir")
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    asked = {name: value for name, value in to_json(options).items() if name not in free}
    return {**asked, "weights": digest.hexdigest()[:16]}


def evaluate(options: Options) -> str:
    """Scores everything that is not yet in the results, and returns the table."""
    trained = load_trained(options.ghn)
    images = load_images(options.dataset, options.image_size, options.data_dir)
    noise = options.seed if options.noise else None
    training = ()
    if options.bn == "reestimated":
        batches = train_batches(images, options.batch_size, options.seed)
        training = tuple(batches.batch(i)[0] for i in range(options.bn_batches))
    evaluator = Evaluator(
        ghn=trained.ghn,
        variables=trained.variables,
        batches=list(eval_batches(images, options.image_split, options.batch_size, options.images, noise)),
        runner=Runner(),
        protocol=options.bn,
        training_images=training,
        seed=options.seed if options.he else None,
    )
    source = ArchitectureConfig(
        split=options.split, architecture_file=options.architecture_file, demo_width=options.demo_width
    )
    task = Task(images.num_classes, images.image_size)
    split = "test" if options.split == "demo" else options.split
    chosen = list(evaluation_architectures(source, task, split, options.architectures))
    claim_folder(options.folder, question(options, trained.variables))
    scores = score_all(evaluator, chosen, options.folder / "scores.jsonl")
    ways = {"predicted": [s.top1 for s in scores]}
    if options.he:
        ways["He init"] = [s.he_top1 or 0.0 for s in scores]
    title = f"{len(scores)} architectures of {options.split}, {options.dataset} {options.image_split}, BN {options.bn}"
    histogram_picture(ways, title, options.folder / "histogram.png")
    return summary_table(scores, 1 / images.num_classes)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    show_log(Terminal())
    use_compilation_cache(options.compilation_cache)
    try:
        table = evaluate(options)
    except ValueError as error:
        sys.exit(f"eval_ghn: {error}")
    print(f"{options.ghn}, BN {options.bn}, on {jax.devices()[0].device_kind}, nothing trained after prediction")
    print(table)
    print(f"written: {options.folder}/scores.jsonl, {options.folder}/histogram.png")


if __name__ == "__main__":
    main()

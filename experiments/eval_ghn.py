"""Accuracy of predicted parameters on unseen architectures, without any training, beside random initialisation.

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

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import pathlib

import jax
import tyro
from terminal import Terminal, show_log

from ghn_jax.evaluation import Evaluation, EvaluationConfig, evaluate
from ghn_jax.evaluation.score_table import RANDOM_INIT_LABELS
from ghn_jax.images import load_images
from ghn_jax.images.records import BadImages
from ghn_jax.metatraining.config import ImageConfig
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.runs.pictures import histogram_picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(EvaluationConfig):
    """What to evaluate.

    Attributes:
      ghn: folder of a run, a checkpoint of ours or of the release, or a name such as ppuda:ghn2_cifar10.
      dataset: image set; see meta_train.
      data_dir: folder of prepared tensorflow-datasets sets.
      image_size: height and width; default: the set's own.
      bad_images: pictures that cannot be read: refuse names them and ends, skip leaves them out.
      out: folder of results; default: runs/eval/GHN-SPLIT-DATASET-BN.
      compilation_cache: folder of compiled programs; default: that of `networks.enable_compilation_cache`. ""
        keeps nothing.
    """

    ghn: str
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    bad_images: BadImages = "refuse"
    out: pathlib.Path | None = None
    compilation_cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ImageConfig(self.dataset, self.data_dir, self.image_size)  # checks them
        if not self.ghn:
            raise ValueError("ghn must name a hypernetwork, got ''")

    @property
    def folder(self) -> pathlib.Path:
        """Folder of results."""
        name = self.ghn.rstrip("/").replace("/", "_").replace(":", "_")
        parts = [name, self.split, self.dataset.replace("/", "_"), self.bn]
        parts += ["noise"] * self.noise + [self.random_init] * (self.random_init == "torch")
        return self.out or pathlib.Path("runs") / "eval" / "-".join(parts)


def run(options: Options) -> Evaluation:
    """Scores everything that is not yet in the results, and draws the histogram."""
    trained = load_trained(options.ghn)
    images = load_images(options.dataset, options.image_size, options.data_dir, bad_images=options.bad_images)
    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(EvaluationConfig)}
    found = evaluate(trained, images, EvaluationConfig(**fields), folder=options.folder)
    accuracies = {"predicted": [score.top1 for score in found.scores]}
    if options.random_init != "none":
        label = RANDOM_INIT_LABELS[options.random_init]
        accuracies[label] = [score.random_top1 or 0.0 for score in found.scores]
    asked = f"{options.split}, {options.dataset} {options.image_split}, BN {options.bn}"
    histogram_picture(accuracies, f"{len(found.scores)} architectures of {asked}", options.folder / "histogram.png")
    return found


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    show_log(Terminal())
    if options.compilation_cache != "":
        enable_compilation_cache(options.compilation_cache)
    found = run(options)
    print(f"{options.ghn}, BN {options.bn}, on {jax.devices()[0].device_kind}, nothing trained after prediction")
    print(found.table)
    print(f"written: {options.folder}/scores.jsonl, {options.folder}/histogram.png")


if __name__ == "__main__":
    running.run(main)

"""What can be told of a network without training it: ground truth, and a ladder of scores that rank networks.

What the paper reports (Knyazev et al., NeurIPS 2021, Fig. 4: Kendall's tau on 500 test networks of CIFAR-10, accuracy):
support vector regression on embeddings of GHN-2 0.80, accuracy of predicted parameters 0.26, one epoch of SGD 0.43.

  python experiments/properties.py truth --out=runs/truth-val --split=val --count=100 --dataset=cifar10 --steps=500
  python experiments/properties.py truth --out=runs/truth-test --split=test --count=100 --dataset=cifar10 --steps=500
  python experiments/properties.py ladder --fit=runs/truth-val --test=runs/truth-test --ghns GHN OTHER --out=runs/ladder
  python experiments/properties.py published --file=results_cifar10.json         tables of the release's result files

Networks of the ground truth are trained a few side by side; hours for hundreds of them on two cores. The same command
goes on where it stopped.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import json
import pathlib
from typing import Annotated, Any

import numpy as np
import tyro
from terminal import Terminal, show_log

from ghn_jax.deepnets.sources import Task
from ghn_jax.evaluation.api import Split
from ghn_jax.fields import COUNT, Range, check_fields
from ghn_jax.files import atomic_file
from ghn_jax.images import load_images
from ghn_jax.metatraining.config import ImageConfig
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.properties import Ranked, Truth, ladder, make_truth, published_table, published_taus, read_released
from ghn_jax.properties.rungs import KnownNetworks, rungs, split_networks
from ghn_jax.runs.cores import divide_cores
from ghn_jax.training import NetTrainConfig
from ghn_jax.training.config import geometric

TABLE = "ladder.json"


@dataclasses.dataclass(frozen=True, slots=True)
class TruthOptions:
    """Trains networks of a split and records what they turn out to be.

    Attributes:
      out: folder of ``truth.jsonl``.
      train: how; accuracy on validation images is the usual property.
      split: of DeepNets-1M, or the demo's networks.
      count: networks of it.
      demo_width: C of the demo's networks.
      start: where networks start.
      together: networks side by side.
      dataset: image set; see meta_train.
      data_dir: folder of prepared tensorflow-datasets sets.
      image_size: height and width; default: the set's own.
    """

    out: pathlib.Path
    train: NetTrainConfig = dataclasses.field(default_factory=lambda: NetTrainConfig(image_split="val"))
    split: Split = "val"
    count: int = 100
    demo_width: int = 16
    start: str = "torch"
    together: int = 4
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"count": COUNT, "together": COUNT, "demo_width": Range(1, 8_192)})
        ImageConfig(self.dataset, self.data_dir, self.image_size)  # checks them


@dataclasses.dataclass(frozen=True, slots=True)
class LadderOptions:
    """Ranks the networks of one ground truth by scores, some of which are fitted on another.

    Attributes:
      out: folder of the table.
      fit: folder of the ground truth that regressors learn from.
      test: folder of the ground truth that is ranked.
      ghns: hypernetworks whose embeddings and predictions are tried; the first also starts short trainings.
      steps: updates of short trainings from predicted parameters; each of them is a rung.
      data_dir: folder of prepared tensorflow-datasets sets.
    """

    out: pathlib.Path
    fit: pathlib.Path
    test: pathlib.Path
    ghns: tuple[str, ...] = ()
    steps: tuple[int, ...] = (10, 50)
    data_dir: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"steps": COUNT})


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedOptions:
    """Prints the tables that follow from a result file of the release.

    Attributes:
      file: such as results_cifar10.json, or the extended one.
    """

    file: pathlib.Path


def truth(options: TruthOptions) -> list[Truth]:
    """The ground truth."""
    images = load_images(options.dataset, options.image_size, options.data_dir)
    config = options.train
    if not config.curve:
        config = dataclasses.replace(config, curve=geometric(config.steps))
    asked = {name: getattr(options, name) for name in ("split", "demo_width", "dataset")}
    task = Task(images.num_classes, images.image_size)
    return make_truth(
        split_networks(options.split, options.count, options.demo_width, task),
        images,
        config,
        options.out,
        start=options.start,
        together=options.together,
        asked={**asked, "image_size": images.image_size},
        reporter=Terminal(),
    )


def main() -> None:
    options: Any = tyro.cli(
        Annotated[TruthOptions, tyro.conf.subcommand("truth")]
        | Annotated[LadderOptions, tyro.conf.subcommand("ladder")]
        | Annotated[PublishedOptions, tyro.conf.subcommand("published")],
        description=running.described(__doc__),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    show_log(Terminal())
    if isinstance(options, PublishedOptions):
        found = read_released(options.file)
        print(published_table(found))
        for name, tau in published_taus(found.get("test", [])).items():
            print(f"test, tau of {name:<24}{tau:6.2f}")
        return
    enable_compilation_cache()
    if isinstance(options, TruthOptions):
        divide_cores(options.train.threads)
        made = truth(options)
        print(f"{len(made)} networks, top-1 {100 * np.mean([one.clean for one in made]):.1f} %, in {options.out}")
        return
    table: list[Ranked] = []
    fit, test = (KnownNetworks(folder, options.data_dir) for folder in (options.fit, options.test))
    ghns = {name: load_trained(name) for name in options.ghns}
    for rung in rungs(fit, test, ghns, options.out / "short", steps=options.steps, reporter=Terminal()):
        table.append(rung)
        print(ladder([rung]).splitlines()[1], flush=True)
        with atomic_file(options.out / TABLE) as new:
            new.write_text(json.dumps([dataclasses.asdict(one) for one in table], indent=1) + "\n")
    print(ladder(table))
    print("written:", options.out / TABLE)


if __name__ == "__main__":
    running.run(main)

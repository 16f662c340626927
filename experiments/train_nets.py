"""Trains networks of DeepNets-1M, or any linen model, from several starts: what is a predicted start worth?

What the paper's figures say for CIFAR-10 (500 networks of the test split, SGD, batch 96): a GHN-2's prediction is as
good as about 2,130 updates from a random start (4.6 epochs; quartiles 3.7 and 6.3), a GHN-1's as 910, the MLP's as 465.

  python experiments/train_nets.py --out=runs/starts --ghn=runs/ghn2-cifar10-0 --dataset=cifar10 --data-dir=DIR \
      --split=test --count=40 --starts he torch orthogonal predicted predicted+noise --steps=500
  python experiments/train_nets.py --out=runs/resnet --model=ghn_jax.networks.zoo:create \
      --arguments='{"name": "resnet18", "num_classes": 10, "small_images": true}' --starts he predicted+noise

All networks see the same batches. Ends with a table against the first start: accuracy before the first and after the
last update, how many updates of the first start a prediction is worth, which share of updates it saves, how many
networks end worse; and with ``starts.png``, mean accuracy over updates. The same command goes on where it stopped.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Literal

import flax.linen as nn
import tyro
from predict_params import json_object, load_model
from terminal import Terminal, show_log

from ghn_jax.deepnets.sources import DEMO, ArchitectureConfig, Task
from ghn_jax.evaluation.api import Split, digest
from ghn_jax.evaluation.architectures import Named, evaluation_architectures
from ghn_jax.fields import COUNT, Range, check_fields, refuse_idle
from ghn_jax.graphs.tracing import trace
from ghn_jax.metatraining.config import ImageConfig
from ghn_jax.metatraining.starting import load_sized, load_trained
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.runs.cores import divide_cores
from ghn_jax.runs.pictures import start_picture
from ghn_jax.training import STARTS, Curve, Given, NetTrainConfig, compare
from ghn_jax.training.config import geometric
from ghn_jax.training.study import train_from_starts
from ghn_jax.training.worth import mean_curves, table

_RANGES = {
    "count": COUNT,
    "first": COUNT,
    "noise": Range(0, whole=False),
    "demo_width": Range(1, 8_192),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What to train.

    Attributes:
      out: folder of results.
      train: how.
      split: of DeepNets-1M, or the demo's networks.
      count: networks of it.
      demo_width: C of the demo's networks.
      model: MODULE:NAME of a linen model, or of what makes one, to train instead of a split.
      arguments: JSON object, arguments of what makes the model.
      starts: the first one is what the others are compared with.
      ghn: hypernetwork of predicted starts: a run's folder, or anything that `load_ghn` takes.
      noise: of predicted+noise and predicted+orth.
      first: number of the first tensor that those two change.
      dataset: image set; see meta_train.
      data_dir: folder of prepared tensorflow-datasets sets.
      image_size: height and width; default: the set's own.
      images_per_class: train on so many images of each class only; default: all.
      few_shot: which ones: random, drawn with the seed, or the first of each class.
      keep_weights: whether trained weights are written.
      compilation_cache: folder of compiled programs; default: that of `networks.enable_compilation_cache`. ""
        keeps nothing.
    """

    out: pathlib.Path
    train: NetTrainConfig = dataclasses.field(default_factory=NetTrainConfig)
    split: Split = "test"
    count: int = 40
    demo_width: int = 16
    model: str | None = None
    arguments: str = "{}"
    starts: tuple[str, ...] = ("he", "predicted")
    ghn: str | None = None
    noise: float = 3e-5
    first: int = 1
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    images_per_class: int | None = None
    few_shot: Literal["random", "first"] = "random"
    keep_weights: bool = False
    compilation_cache: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        _ = self.images  # checked
        unknown = [name for name in self.starts if name not in STARTS]
        if unknown or not self.starts or len(set(self.starts)) < len(self.starts):
            raise ValueError(f"starts must be some of {', '.join(STARTS)}, each once, got {' '.join(self.starts)}")
        if self.ghn is None and any(name.startswith("predicted") for name in self.starts):
            raise ValueError("predicted starts need a hypernetwork: give --ghn")
        if self.model is None:
            refuse_idle(self, ("arguments",), "without --model")

    @property
    def images(self) -> ImageConfig:
        """Images to train on."""
        return ImageConfig(
            self.dataset,
            self.data_dir,
            self.image_size,
            images_per_class=self.images_per_class,
            few_shot=self.few_shot,
        )


def run(options: Options) -> dict[str, list[Curve]]:
    """Trains what is not yet in the results, and draws the picture."""
    images = load_sized(options.images, options.image_size, options.train.seed)
    ghn = None if options.ghn is None else load_trained(options.ghn)
    config = options.train
    if not config.curve:
        config = dataclasses.replace(config, curve=geometric(config.steps))
    fields = ("split", "model", "arguments", "noise", "first", "dataset", "images_per_class", "few_shot")
    asked = {name: getattr(options, name) for name in fields}
    curves = train_from_starts(
        architectures(options, Task(images.num_classes, images.image_size)),
        options.starts,
        images,
        config,
        options.out,
        given=Given(ghn, options.noise, options.first),
        asked={**asked, "image_size": images.image_size, "ghn": None if ghn is None else digest(ghn.variables)},
        keep_weights=options.keep_weights,
        reporter=Terminal(),
    )
    title = f"{len(curves[options.starts[0]])} networks, {options.dataset} at {images.image_size} x {images.image_size}"
    start_picture(mean_curves(curves), title, options.out / "starts.png")
    return curves


def architectures(options: Options, task: Task) -> Iterator[Named]:
    """The model, or the networks of the split."""
    if options.model is not None:
        model = load_model(options.model, json_object("--arguments", options.arguments), options.train.seed)
        if not isinstance(model, nn.Module):
            raise ValueError(f"--model {options.model!r} must be a Flax linen model to be trained here")
        yield 0, model, trace(model, (task.image_size, task.image_size, 3))
        return
    source = ArchitectureConfig(split=options.split, demo_width=options.demo_width)
    split = "test" if options.split == DEMO else options.split
    yield from evaluation_architectures(source, task, split, options.count)


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__), config=(tyro.conf.OmitArgPrefixes,))
    show_log(Terminal())
    if options.compilation_cache != "":
        enable_compilation_cache(options.compilation_cache)
    divide_cores(options.train.threads)
    curves = run(options)
    first = options.starts[0]
    print(f"compared with {first}: median (quartiles) over networks")
    print(table([compare(name, own, curves[first]) for name, own in curves.items()], options.train.steps))
    print(f"written: {options.out}/curves.jsonl, {options.out}/starts.png")


if __name__ == "__main__":
    running.run(main)

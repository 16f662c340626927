"""Detection from a predicted or a random backbone: Faster R-CNN without a feature pyramid.

What the paper reports on Penn-Fudan (Knyazev et al., NeurIPS 2021, Table 6: AP at overlap 0.5):

| start | ResNet-50 | ViT | DARTS |
|---|---|---|---|
| random | .197 +- .042 | .144 +- .010 | .486 +- .035 |
| GHN-1 | .433 +- .013 | .000 | .468 +- .024 |
| GHN-2 | .560 +- .019 | .436 +- .032 | .785 +- .032 |

  python experiments/detect.py --out=runs/detect --ghn=GHN --starts predicted he     embedded scenes of digits, minutes
  python experiments/detect.py --out=runs/people --ghn=GHN --penn-fudan=DIR --size=256   your own copy of Penn-Fudan

The backbone is a network of DeepNets-1M up to its last feature map. Ends with average precision after the last epoch,
mean and standard error over the seeds; the same command goes on where it stopped.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import json
import pathlib
from typing import Literal

import numpy as np
import tyro
from terminal import Terminal, show_log

from ghn_jax.deepnets import DARTS, NetworkArgs, network_graph, sample_architecture
from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.detection import DetectionConfig, DetectorTask, digit_scenes, penn_fudan, train_detector
from ghn_jax.fields import COUNT, IMAGE_SIZE, check_fields, refuse_idle
from ghn_jax.files import atomic_file
from ghn_jax.images.image_set import measured_style
from ghn_jax.keys import RANDOM_INITIALISATION, named_key
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.networks import Backbone, enable_compilation_cache
from ghn_jax.training import STARTS, Given, start_params

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """A comparison of starts.

    Attributes:
      out: folder of results.
      train: how; its seed is the first.
      ghn: hypernetwork of predicted starts: a run's folder, or anything that `load_ghn` takes.
      starts: of the backbone; see train_nets.
      backbone: darts, or the first network of DeepNets-1M's test split.
      width: C of the backbone.
      cells: of the backbone.
      seeds: repetitions.
      size: height and width of the images.
      images: embedded scenes to train on; half as many test.
      penn_fudan: folder of the user's own Penn-Fudan, instead of embedded scenes.
      compilation_cache: folder of compiled programs; default: that of `networks.enable_compilation_cache`. ""
        keeps nothing.
    """

    out: pathlib.Path
    train: DetectionConfig = dataclasses.field(default_factory=DetectionConfig)
    ghn: str | None = None
    starts: tuple[str, ...] = ("he",)
    backbone: Literal["darts", "test-0"] = "darts"
    width: int = 16
    cells: int = 5
    seeds: int = 3
    size: int = 64
    images: int = 240
    penn_fudan: pathlib.Path | None = None
    compilation_cache: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"width": COUNT, "cells": COUNT, "seeds": COUNT, "size": IMAGE_SIZE, "images": COUNT})
        unknown = [name for name in self.starts if name not in STARTS or name == "gradinit"]
        if unknown or not self.starts:
            raise ValueError(f"starts must be some of {', '.join(STARTS)} (but gradinit), got {' '.join(self.starts)}")
        if self.ghn is None and any(name.startswith("predicted") for name in self.starts):
            raise ValueError("predicted starts need a hypernetwork: give --ghn")
        if self.penn_fudan is not None:
            refuse_idle(self, ("images",), "with --penn-fudan")


def backbone_args(options: Options, classes: int) -> NetworkArgs:
    """The network whose last feature map is used, for images of the detector's size and the hypernetwork's classes."""
    drawn = None if options.backbone == "darts" else sample_architecture("test", 0).args
    args = drawn or DARTS
    return args.replace(C=options.width, n_cells=options.cells, num_classes=classes, image_size=options.size)


def run(options: Options) -> dict[str, list[float]]:
    """Average precision at overlap 0.5 after the last epoch, by start and seed; what is there already stays."""
    if options.penn_fudan is None:
        training = digit_scenes(options.images, options.size, seed=options.train.seed)
        test = digit_scenes(max(options.images // 2, 1), options.size, test=True, seed=options.train.seed)
    else:
        training, test = penn_fudan(options.penn_fudan, options.size)
    ghn = None if options.ghn is None else load_trained(options.ghn)
    args = backbone_args(options, 10 if ghn is None else ghn.config.num_classes)
    graph, style = network_graph(args), measured_style(training.images)
    found: dict[str, list[float]] = {}
    for start in options.starts:
        found[start] = []
        for number in range(options.seeds):
            seed = options.train.seed + number
            key = named_key(seed, RANDOM_INITIALISATION)
            task = DetectorTask(
                Backbone(args, momentum=0.9),
                start_params(start, graph, key, Given(ghn)),
                training,
                style,
                dataclasses.replace(options.train, seed=seed),
            )
            print(f"{start}, seed {seed}", flush=True)
            curve = train_detector(task, test, options.out / f"{start}-{seed}", Terminal())
            found[start].append(curve[-1].at_half)
            with atomic_file(options.out / RESULTS) as new:
                new.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__), config=(tyro.conf.OmitArgPrefixes,))
    show_log(Terminal())
    if options.compilation_cache != "":
        enable_compilation_cache(options.compilation_cache)
    found = run(options)
    print(f"average precision at overlap 0.5 after {options.train.epochs} epochs, {options.seeds} seeds")
    for start, values in found.items():
        print(f"{start:<18}{np.mean(values):.3f} +- {standard_error(values):.3f}")
    print(f"written: {options.out / RESULTS}")


if __name__ == "__main__":
    running.run(main)

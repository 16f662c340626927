"""How often `ghn_jax.advise` is right: its advice beside what `train_nets.py` found when it trained from every start.

GHN-3's authors publish that 19 of 74 torchvision models end below a random start when trained from its prediction: the
question that advice is to answer.

  python experiments/train_nets.py --out=runs/starts --ghn=GHN --dataset=cifar10 --starts he predicted predicted+noise
  python experiments/advise_study.py --results=runs/starts --ghn=GHN --out=runs/advice

For every network of the results: which start ends highest, which one the advice is, and what following it costs in
accuracy (regret), beside always using one start. A line of ``advice.jsonl`` a network; goes on where it stopped.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tyro
from terminal import Terminal, show_log
from train_nets import Options as TrainOptions
from train_nets import architectures

import ghn_jax
from ghn_jax.deepnets.sources import Task
from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.evaluation.score_table import QUESTION_FILE
from ghn_jax.fields import COUNT, check_fields
from ghn_jax.hypernet.json_fields import append_lines, read_lines
from ghn_jax.images import eval_batches, load_images
from ghn_jax.metatraining.starting import load_trained
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.runs.progress import Progress
from ghn_jax.training import Curve, NetOptimiserConfig
from ghn_jax.training.study import CURVES_FILE, read_curves

ADVICE_FILE = "advice.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """A study of advice.

    Attributes:
      results: folder of `train_nets.py`, of a split.
      out: folder of the advice.
      ghn: hypernetwork that the results were made with.
      steps: updates that the advice tries each start for.
      images: training images that it looks at.
      data_dir: folder of prepared tensorflow-datasets sets.
    """

    results: pathlib.Path
    out: pathlib.Path
    ghn: str
    steps: int = 50
    images: int = 4_096
    data_dir: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"steps": COUNT, "images": COUNT})


@dataclasses.dataclass(frozen=True, slots=True)
class Advised:
    """Advice about a network of the results.

    Attributes:
      name: of the network.
      advised: the start.
    """

    name: str
    advised: str


def by_network(curves: Sequence[Curve], starts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Last accuracy of every start, by network; networks that lack a start are left out."""
    found: dict[str, dict[str, float]] = {}
    for curve in curves:
        for start in sorted(starts, key=len, reverse=True):
            if curve.name.endswith(f"-{start}"):
                found.setdefault(curve.name.removesuffix(f"-{start}"), {})[start] = curve.top1[-1]
                break
    return {name: own for name, own in found.items() if len(own) == len(starts)}


def run(options: Options) -> list[Advised]:
    """Network and advised start of every network of the results."""
    asked = json.loads((options.results / QUESTION_FILE).read_text())
    if asked["model"] is not None:
        raise ValueError(f"{options.results} holds results of one model: the study is of networks of a split")
    ends = by_network(read_curves(options.results / CURVES_FILE), asked["starts"])
    images = load_images(asked["dataset"], asked["image_size"], options.data_dir)
    batches = list(eval_batches(images, "train", 64, options.images))
    pixels, labels = (np.concatenate([np.asarray(batch[part]) for batch in batches]) for part in (0, 1))
    rate = asked["optimiser"]["learning_rate"]
    optimiser = NetOptimiserConfig(asked["optimiser"]["method"], rate, schedule="constant", l2=asked["optimiser"]["l2"])
    ghn, path = load_trained(options.ghn), options.out / ADVICE_FILE
    found = read_lines(Advised, path, "advice")
    drawn = TrainOptions(options.out, split=asked["split"], count=len(ends), starts=("he",))
    task, done = Task(images.num_classes, images.image_size), {row.name for row in found}
    progress = Progress(len(ends), len(done), "advice", Terminal())
    for _, model, graph in architectures(drawn, task):
        name = graph.name.replace("/", "_")
        if name in ends and name not in done:
            advice = ghn_jax.advise(
                model, pixels, labels, ghn, starts=asked["starts"], steps=options.steps, optimiser=optimiser
            )
            found.append(Advised(name, advice.start))
            append_lines(path, found[-1:])
            progress.advance(f"{name}: {advice.start}")
    return found


def summary(found: Sequence[Advised], ends: dict[str, dict[str, float]], steps: int) -> str:
    """Shares and regrets in %, beside always using one start."""
    names = [row.name for row in found]
    best = {name: max(ends[name].values()) for name in names}
    right = np.mean([ends[row.name][row.advised] == best[row.name] for row in found])
    starts = list(ends[names[0]])

    def line(label: str, values: Sequence[float]) -> str:
        regrets = [100 * value for value in values]
        return f"{label:<28}{np.mean(regrets):6.2f} +- {standard_error(regrets):.2f}, at most {max(regrets):.1f}"

    lines = [f"{len(names)} networks; advice is right for {100 * right:.0f} %, at {steps * len(starts)} updates each"]
    lines.append("regret in top-1, %")
    lines.append(line("advice", [best[row.name] - ends[row.name][row.advised] for row in found]))
    lines += [line(f"always {start}", [best[name] - ends[name][start] for name in names]) for start in starts]
    return "\n".join(lines)


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    show_log(Terminal())
    enable_compilation_cache()
    found = run(options)
    asked = json.loads((options.results / QUESTION_FILE).read_text())
    print(summary(found, by_network(read_curves(options.results / CURVES_FILE), asked["starts"]), options.steps))
    print("written:", options.out / ADVICE_FILE)


if __name__ == "__main__":
    running.run(main)

"""A race of hypernetworks or of recipes: each is trained for the same minutes, one after the other.

  python experiments/race.py --out=runs/race                                families on the demo's networks
  python experiments/race.py --out=runs/recipes --field=recipes --data-dir=DIR   recipes on CIFAR-10

Which networks and images an update sees depends on its number and the seed alone, so all racers of a stream see the
same ones; a racer that makes more updates sees more of them. Families: rates fall as if each made `--steps` updates.
Recipes: rates are constant and a moving average of the weights is scored, so that no racer has to know how many updates
it will make; all are scored at 32 x 32, whatever they train at. Ends with a table of top-1 on unseen architectures and
test images and with ``race.png``, validation accuracy over the wall-clock. A race that was stopped goes on when the
same command is given again.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import json
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import tyro
from terminal import Terminal, show_log

from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.evaluation.score_table import claim_folder, read_scores
from ghn_jax.fields import refuse_idle
from ghn_jax.files import atomic_file
from ghn_jax.hypernet.json_fields import checked_fields
from ghn_jax.metatraining.command import parse_config, set_up
from ghn_jax.metatraining.loop import TrainResult, train
from ghn_jax.metatraining.validation import final_evaluation
from ghn_jax.runs.metrics import METRICS_FILE, read_metrics

_SMALL = ("--small-sizes", "16", "--small-until", "0.99")
_LESS_OFTEN, _OF_TEST = ("--costly-above=40000000",), ("--widths", "32", "48", "64")
_CHEAP = (*_SMALL, *_LESS_OFTEN, *_OF_TEST)

FIELDS: dict[str, Mapping[str, tuple[str, ...]]] = {
    "families": {
        "GHN-1": ("--preset=demo", "--no-virtual-edges", "--no-layernorm", "--normalization=none"),
        "MLP": ("--preset=demo", "--encoder=mlp"),
        "GHN-2": ("--preset=demo",),
        "GHN-3 tiny": ("--preset=ghn3-tiny",),
        "GHN-2, low rank": (
            *("--preset=demo", "--decoder=low_rank", "--rank=8", "--width=1024"),
            *("--max-shape", "64", "64", "11", "11"),
        ),
    },
    "recipes": {
        "paper": (),
        "16 x 16": _SMALL,
        "cheaper networks": _CHEAP,
        "rate 2e-3": (*_CHEAP, "--learning-rate=2e-3"),
        "rate 4e-3": (*_CHEAP, "--learning-rate=4e-3"),
        "Muon 1e-3": (*_CHEAP, "--method=muon"),
        "Muon 2e-3": (*_CHEAP, "--learning-rate=2e-3", "--method=muon"),
        "Muon 4e-3": (*_CHEAP, "--learning-rate=4e-3", "--method=muon"),
        "AdamW": (*_CHEAP, "--l2=0", "--weight-decay=1e-2"),
        "meta-batch 4": (*_CHEAP, "--meta-batch=4"),
        "batch 32": (*_CHEAP, "--batch-size=32"),
        "all widths": (*_SMALL, *_LESS_OFTEN),
        "costly ones too": (*_SMALL, *_OF_TEST),
        "label smoothing": (*_CHEAP, "--label-smoothing=0.1"),
        "near virtual edges": (*_CHEAP, "--s-max=10"),
        "hid 64": (*_CHEAP, "--hid=64"),
        "max shape 32": (*_CHEAP, "--max-shape", "32", "32", "11", "11"),
    },
}
"""Options of `meta_train.py` by racer. The low-rank decoder, whose weights `max_shape` does not add to, never tiles.

The third recipe draws costly networks less often and has the widths of test networks alone; those after it each change
it in one point. Small images would end at 99 % of the updates, which no race reaches.
"""

COMMON: dict[str, tuple[str, ...]] = {
    "families": ("--validate-every=100",),
    "recipes": (
        *("--preset=ghn2", "--dataset=cifar10", "--image-size=32", "--epochs=100000"),
        *(
            "--average=0.98",
            "--warmup-steps=20",
            "--validate-every=200",
            "--validation-images=256",
            "--test-images=512",
            "--held-layers=1800",
        ),
    ),
}
"""Options of all racers of a field."""

PICTURE, TABLE = "race.png", "race.json"
LEAST_MINUTES = 0.01
"""For a racer that was stopped after its last update."""


@dataclasses.dataclass(frozen=True)
class Options:
    """A race.

    Attributes:
      out: folder of the runs, one for each racer, and of the picture.
      field: families or recipes.
      minutes: of training, for each.
      steps: updates over which rates of families fall; none makes more.
      seed: of networks, images and weights.
      warm_up: minutes of training before the race, by the first racer's options, of which only compiled layers are
        kept: without it the first racer compiles for all others.
      racers: who takes part, of those listed above; default: all of the field.
      more: further options of `meta_train.py` for all of them; the command takes them as they are.
    """

    out: pathlib.Path
    field: Literal["families", "recipes"] = "families"
    minutes: float = 10.0
    steps: int = 4_000
    seed: int = 0
    warm_up: float = 2.0
    racers: tuple[str, ...] = ()
    more: tyro.conf.Suppress[tuple[str, ...]] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one racer.

    Attributes:
      name: of the racer.
      updates: made.
      minutes: spent in updates and waiting for what they need.
      top1: of unseen architectures on test images, mean, in %.
      error: standard error of the mean.
      curve: those minutes and validation top-1 in %, at each validation.
    """

    name: str
    updates: int
    minutes: float
    top1: float
    error: float
    curve: tuple[tuple[float, float], ...]


def run(options: Options) -> list[Result]:
    """The whole race; results are written as they come, and racers that have finished are not run again.

    Raises:
      ValueError: for an unknown racer, steps of recipes, or a folder that holds another race.
    """
    known = FIELDS[options.field]
    unknown = [name for name in options.racers if name not in known]
    if unknown:
        raise ValueError(f"no racer {', '.join(map(repr, unknown))}; known: {', '.join(map(repr, known))}")
    steps = (f"--steps={options.steps}",)
    if options.field == "recipes":
        refuse_idle(options, ("steps",), "for recipes, whose rates are constant")
        steps = ()
    asked = {"field": options.field, "minutes": options.minutes, "seed": options.seed, "more": [*steps, *options.more]}
    table = options.out / TABLE
    there = {result.name: result for result in read_table(table)}
    claim_folder(options.out, asked, answered=bool(there))
    results: list[Result] = []
    racers = options.racers or tuple(known)

    def arguments(name: str, folder: pathlib.Path, minutes: float) -> list[str]:
        given = (f"--run-dir={folder}", f"--minutes={minutes}", f"--seed={options.seed}", *steps, *options.more)
        return [*COMMON[options.field], *known[name], *given]

    if options.warm_up and any(name not in there for name in racers):
        with tempfile.TemporaryDirectory() as folder:
            train_here(arguments(racers[0], pathlib.Path(folder), options.warm_up))
    for name in racers:
        if name not in there:
            folder = options.out / re.sub(r"\W+", "_", name.lower())
            left = max(options.minutes - minutes_spent(folder), LEAST_MINUTES)
            train_and_score(arguments(name, folder, left))
            there[name] = read_result(name, folder)
            with atomic_file(table) as new:
                new.write_text(json.dumps([dataclasses.asdict(result) for result in there.values()], indent=1) + "\n")
        results.append(there[name])
        draw(results, options.out / PICTURE)
    return results


def train_here(arguments: Sequence[str]) -> TrainResult:
    """Trains in this process, so that a racer finds the layers that those before it compiled."""
    config = parse_config(arguments, "a racer")
    set_up(config.run)
    result = train(config, Terminal())
    if not result.finished:
        raise KeyboardInterrupt
    return result


def train_and_score(arguments: Sequence[str]) -> None:
    """What `meta_train.py` does."""
    result = train_here(arguments)
    _, table, _ = final_evaluation(result.config, result.ghn, result.params, result.images)
    print(table, flush=True)


def minutes_spent(folder: pathlib.Path) -> float:
    """Of a run that was stopped, in updates and waiting for what they need."""
    if not (folder / METRICS_FILE).exists():
        return 0.0
    rows = [row for row in read_metrics(folder) if row["kind"] == "train"]
    return sum(row["seconds"] + row["waited_seconds"] for row in rows) / 60


def read_table(path: pathlib.Path) -> list[Result]:
    """Racers that have finished, none if there is no table.

    Raises:
      ValueError: for a damaged table; names it.
    """
    try:
        rows = json.loads(path.read_text()) if path.exists() else []
        return [Result(**checked_fields(Result, row, "it")) for row in rows]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no table of a race: {error}; move it away") from None


def read_result(name: str, folder: pathlib.Path) -> Result:
    """What a finished run's files say."""
    spent, curve = 0.0, []
    updates = 0
    for row in read_metrics(folder):
        if row["kind"] == "train":
            spent += (row["seconds"] + row["waited_seconds"]) / 60
            updates += 1
        elif row["kind"] == "validation":
            curve.append((spent, 100 * row["top1"]))
    scores = [100 * score.top1 for score in read_scores(folder / "test.jsonl")]
    return Result(name, updates, spent, float(np.mean(scores)), standard_error(scores), tuple(curve))


def draw(results: Sequence[Result], path: pathlib.Path) -> None:
    """Validation accuracy of all racers over the wall-clock without validations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for result in results:
        label = f"{result.name}: {result.top1:.1f} +- {result.error:.1f} % after {result.updates:,} updates"
        axis.plot(*np.array(result.curve or [(np.nan, np.nan)]).T, "o-", markersize=3, label=label)
    axis.set(xlabel="minutes", ylabel="top-1 of unseen architectures on validation images, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, title="top-1 on test images")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main() -> None:
    options, more = tyro.cli(Options, description=running.described(__doc__), return_unknown_args=True)
    options = dataclasses.replace(options, more=tuple(more))
    show_log(Terminal())
    results = run(options)
    print(f"{'racer':<18}{'updates':>9}{'minutes':>9}   top-1 on test images, %")
    for result in results:
        print(f"{result.name:<18}{result.updates:>9,}{result.minutes:>9.1f}   {result.top1:.1f} +- {result.error:.1f}")
    print("written:", options.out / TABLE, options.out / PICTURE)


if __name__ == "__main__":
    running.run(main)

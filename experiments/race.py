"""A race of hypernetworks on the demo's networks and images: each is trained for the same minutes, one after the other.

  python experiments/race.py --out=runs/race      50 minutes of training on two CPU cores, and the evaluations

Which networks and images an update sees depends on its number and the seed alone, so all racers see the same ones; a
racer that makes more updates sees more of them. Rates fall as if each made `--steps` updates. Ends with a table of
top-1 on unseen architectures and test images and with ``race.png``, validation accuracy over the time spent in updates.
A race that was stopped goes on when the same command is given again.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import tyro

from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.evaluation.score_table import read_scores
from ghn_jax.files import atomic_file
from ghn_jax.runs.metrics import read_metrics

RACERS: dict[str, tuple[str, ...]] = {
    "GHN-1": ("--preset=demo", "--no-virtual-edges", "--no-layernorm", "--normalization=none"),
    "MLP": ("--preset=demo", "--encoder=mlp"),
    "GHN-2": ("--preset=demo",),
    "GHN-3 tiny": ("--preset=ghn3-tiny",),
    "GHN-2, low rank": (
        *("--preset=demo", "--decoder=low_rank", "--rank=8", "--width=1024"),
        *("--max-shape", "64", "64", "11", "11"),
    ),
}
"""Options of `meta_train.py` by racer. The low-rank decoder, whose weights `max_shape` does not add to, never tiles."""

PICTURE, TABLE = "race.png", "race.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """A race.

    Attributes:
      out: folder of the runs, one for each racer, and of the picture.
      minutes: of training, for each.
      steps: updates over which rates fall; none makes more.
      seed: of networks, images and weights.
      racers: who takes part, of those listed above; default: all.
      more: further options of `meta_train.py` for all of them.
    """

    out: pathlib.Path
    minutes: float = 10.0
    steps: int = 4_000
    seed: int = 0
    racers: tuple[str, ...] = tuple(RACERS)
    more: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one racer.

    Attributes:
      name: of the racer.
      updates: made.
      minutes: spent in updates.
      top1: of unseen architectures on test images, mean, in %.
      error: standard error of the mean.
      curve: minutes spent and validation top-1 in %, at each validation.
    """

    name: str
    updates: int
    minutes: float
    top1: float
    error: float
    curve: list[tuple[float, float]]


def run(options: Options) -> list[Result]:
    """The whole race; results are written as they come.

    Raises:
      ValueError: for an unknown racer.
      subprocess.CalledProcessError: if a run fails.
    """
    unknown = [name for name in options.racers if name not in RACERS]
    if unknown:
        raise ValueError(f"no racer {', '.join(map(repr, unknown))}; known: {', '.join(map(repr, RACERS))}")
    results: list[Result] = []
    for name in options.racers:
        folder = options.out / name.lower().replace(" ", "_").replace(",", "")
        command = [
            *(sys.executable, str(pathlib.Path(__file__).with_name("meta_train.py")), *RACERS[name]),
            *(
                f"--run-dir={folder}",
                f"--minutes={options.minutes}",
                f"--steps={options.steps}",
                f"--seed={options.seed}",
            ),
            *("--validate-every=100", *options.more),
        ]
        subprocess.run(command, check=True)
        results.append(read_result(name, folder))
        with atomic_file(options.out / TABLE) as new:
            new.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1) + "\n")
        draw(results, options.out / PICTURE)
    return results


def read_result(name: str, folder: pathlib.Path) -> Result:
    """What a finished run's files say."""
    spent, curve = 0.0, []
    updates = 0
    for row in read_metrics(folder):
        if row["kind"] == "train":
            spent += row["seconds"] / 60
            updates += 1
        elif row["kind"] == "validation":
            curve.append((spent, 100 * row["top1"]))
    scores = [100 * score.top1 for score in read_scores(folder / "test.jsonl")]
    return Result(name, updates, spent, float(np.mean(scores)), standard_error(scores), curve)


def draw(results: Sequence[Result], path: pathlib.Path) -> None:
    """Validation accuracy of all racers over the time spent in updates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for result in results:
        label = f"{result.name}: {result.top1:.1f} +- {result.error:.1f} % after {result.updates:,} updates"
        axis.plot(*np.array(result.curve or [(np.nan, np.nan)]).T, "o-", markersize=3, label=label)
    axis.set(xlabel="minutes in updates", ylabel="top-1 of unseen architectures on validation images, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, title="top-1 on test images")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    try:
        results = run(options)
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"race: {error}")
    print(f"{'racer':<18}{'updates':>9}{'minutes':>9}   top-1 on test images, %")
    for result in results:
        print(f"{result.name:<18}{result.updates:>9,}{result.minutes:>9.1f}   {result.top1:.1f} +- {result.error:.1f}")
    print("written:", options.out / TABLE, options.out / PICTURE)


if __name__ == "__main__":
    main()

"""Speed of the parts: ``python experiments/benchmark.py NAME [--json]``.

Each benchmark warms up, repeats, and prints medians; with --json the last line is one JSON object of its figures.
``python experiments/benchmark.py all >> experiments/benchmarks/history.jsonl`` runs all of them and adds one line of
JSON to the file from which ``experiments/plot_history.py`` draws; everything else goes to the terminal.
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import importlib
import json
import pathlib
from typing import Literal, get_args

import tyro

from ghn_jax.fields import COUNT, check_fields
from ghn_jax.networks import enable_compilation_cache

Name = Literal["sampling", "pictures", "predict", "networks", "kernels", "step", "training", "cold"]
NAMES: tuple[str, ...] = get_args(Name)


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmarks."""

    name: tyro.conf.Positional[Literal["all"] | Name]
    """What to time."""
    json: bool = False
    """Print the figures once more as one JSON object on the last line."""
    repeats: int = 5
    """Timed runs after the warm-up; the median is reported."""
    layers: pathlib.Path | None = None
    """With `networks`: only write their layers to this file, see `benchmarks.layers`."""

    def __post_init__(self) -> None:
        check_fields(self, {"repeats": COUNT})


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    if options.layers is not None:
        importlib.import_module("benchmarks.networks").export(options.layers)
        return
    if options.name == "all":
        print(json.dumps(importlib.import_module("benchmarks.history").measure(NAMES, options.repeats)), flush=True)
        return
    enable_compilation_cache()
    figures = importlib.import_module(f"benchmarks.{options.name}").run(options.repeats)
    if options.json:
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    running.run(main)

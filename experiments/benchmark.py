"""Speed of the parts: ``python experiments/benchmark.py NAME [--json]``.

Each benchmark warms up, repeats, and prints medians; with --json the last line is one JSON object of its figures.
"""

import dataclasses
import importlib
import json
from typing import Literal

import tyro

from ghn_jax.networks import enable_compilation_cache


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the benchmarks."""

    name: tyro.conf.Positional[Literal["sampling", "predict", "networks", "kernels", "step", "cold"]]
    """What to time."""
    json: bool = False
    """Print the figures once more as one JSON object on the last line."""
    repeats: int = 5
    """Timed runs after the warm-up; the median is reported."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    enable_compilation_cache()
    figures = importlib.import_module(f"benchmarks.{options.name}").run(options.repeats)
    if options.json:
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

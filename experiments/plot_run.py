"""Learning curves of a run, finished or not: ``python experiments/plot_run.py runs/demo-digits-0``.

Draws ``curves.png`` in the run's folder from its ``metrics.jsonl``; takes a second, and does not disturb the run.
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import pathlib
from typing import Annotated

import tyro

from ghn_jax.runs.pictures import curve_picture


@dataclasses.dataclass(frozen=True)
class Options:
    """What to draw.

    Attributes:
      run_dir: folder of the run.
    """

    run_dir: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="RUN-DIR")]


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    print(curve_picture(options.run_dir))


if __name__ == "__main__":
    running.run(main)

"""How fast the parts were, release by release: ``python experiments/plot_history.py``.

Draws a picture from ``experiments/benchmarks/history.jsonl``, to which
``python experiments/benchmark.py all >> experiments/benchmarks/history.jsonl`` adds a line. Lines of different
processors do not compare.
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import pathlib

import tyro
from benchmarks import history


@dataclasses.dataclass(frozen=True)
class Options:
    """What to draw and where to.

    Attributes:
      file: lines of ``benchmark.py all``.
      out: the picture; default: beside the file.
    """

    file: pathlib.Path = history.FILE
    out: pathlib.Path | None = None


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    print(history.picture(options.file, options.out or options.file.with_suffix(".png")))


if __name__ == "__main__":
    running.run(main)

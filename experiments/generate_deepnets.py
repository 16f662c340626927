"""Makes a split of DeepNets-1M as NAME.hdf5 and NAME_meta.json (paper, Table 1).

    python experiments/generate_deepnets.py --split val --out data/deepnets1m_val.hdf5

Cost: about 4 ms an architecture on one core, all cores are used; 9 kB each. A million takes below an hour on two cores.
A run that was killed goes on where it was when the same command is given again. Ends with a table and a picture
(NAME.png) of statistics beside the published ones. Expected: mean degree and the shares of primitives equal the
published ones within sampling error; the mean path of train is 14.2 (published 14.5), the smallest networks are
smaller, and 1 % of the networks of dense have no batch norm (published 5 %).
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import os
import pathlib

import tqdm
import tyro

from ghn_jax.deepnets import SPLITS, Generated, GenerationPlan, draw_statistics, generate_dataset, statistics_table
from ghn_jax.fields import COUNT, SEED, WORKERS, Range, check_fields


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make and where."""

    split: str = "val"
    """train, val, test, search, wide, deep, dense or bnfree."""
    out: pathlib.Path = pathlib.Path("data/deepnets1m_val.hdf5")
    """The HDF5 file; the JSON and the picture go beside it."""
    count: int | None = None
    """Number of architectures; the published number by default."""
    seed: int = 0
    """Architecture i depends on split, seed and i alone."""
    workers: int = os.cpu_count() or 1
    """Processes; the content does not depend on them."""

    def __post_init__(self) -> None:
        check_fields(self, {"count": COUNT, "seed": SEED, "workers": Range(1, WORKERS.high)})
        if self.out.suffix not in (".hdf5", ".h5"):
            raise ValueError(f"out must end in .hdf5 or .h5, got {str(self.out)!r}")
        GenerationPlan(self.split, self.seed, self.count or 1)  # checks the split


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    if options.split not in SPLITS:
        raise ValueError(f"unknown split {options.split!r}; known splits: {', '.join(SPLITS)}")
    count = SPLITS[options.split].published if options.count is None else options.count
    bars: dict[str, tqdm.tqdm] = {}

    def progress(what: str, more: int) -> None:
        if what not in bars:
            bars[what] = tqdm.tqdm(total=count, desc=what, unit="net", smoothing=0.05)
        bars[what].update(more)

    picture = options.out.with_suffix(".png")

    def report(made: Generated) -> None:
        for bar in bars.values():
            bar.close()
        print(statistics_table(made.rows, options.split))
        drawn = count + sum(made.rejections.values())
        for reason, times in made.rejections.items():
            print(f"rejected: {reason:<44}{times:>10,} of {drawn:,} draws ({100 * times / drawn:.2f} %)")
        draw_statistics(made.rows, options.split, picture)

    plan = GenerationPlan(options.split, options.seed, count)
    made = generate_dataset(options.out, plan, options.workers, progress, report)
    before = "" if made else ", made before"
    print(f"{options.out} and its JSON: {count:,} architectures; picture: {picture}{before}")


if __name__ == "__main__":
    running.run(main)

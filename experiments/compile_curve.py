"""How many layer calls of fresh training networks need a compilation: ``python experiments/compile_curve.py``.

Takes 300 sampled training networks with drawn widths, at 64 images of 32 x 32, and counts the programs that each needs
and no earlier one did; nothing is compiled. After the first 100 networks under 5 % of the calls should compile (1.8 %
measured). Costs half a minute.
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro

from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.widths import draw_width
from ghn_jax.fields import COUNT, COUNT_OR_NONE, SEED, check_fields
from ghn_jax.networks import network_plan
from ghn_jax.networks.schedule import schedule


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line."""

    networks: int = 300
    """How many networks, one after the other."""
    first: int = 100
    """Networks that count as warming up."""
    seed: int = 0
    """Of the networks and their widths."""
    draw_widths: bool = True
    """Draw the width per network as meta-training does, else C 32."""
    picture: pathlib.Path = pathlib.Path("compile_curve.png")
    """Where the curve is drawn."""

    def __post_init__(self) -> None:
        check_fields(self, {"networks": COUNT, "first": COUNT_OR_NONE, "seed": SEED})
        if self.first >= self.networks:
            raise ValueError(f"first must be below networks = {self.networks}, got {self.first}")
        if self.picture.suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"picture must end in .png, .pdf or .svg, got {str(self.picture)!r}")


def counts(options: Options) -> np.ndarray:
    """Int (networks, 2): layer calls, and those that need a new program."""
    rng = np.random.default_rng(options.seed)
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    seen = set()
    rows = []
    for index in range(options.networks):
        args, _ = sample_args("train", index, options.seed)
        args = draw_width(args, rng) if options.draw_widths else args
        keys = [step.key for step in schedule(network_plan(args), images, True, True, None)]
        rows.append((len(keys), len(set(keys) - seen)))
        seen.update(keys)
    return np.array(rows)


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    table = counts(options)
    print(f"{'networks':>14} {'layer calls':>12} {'compiled':>9} {'share':>7}")
    for start in range(0, options.networks, 25):
        calls, new = table[start : start + 25].sum(0)
        print(f"{start:6} .. {start + 25:4} {calls:12} {new:9} {new / calls:7.2%}")
    calls, new = table[options.first :].sum(0)
    total = table[:, 1].sum()
    print(
        f"after the first {options.first}: {new} of {calls} calls compile, {new / calls:.2%}; {total} programs in all"
    )
    share = np.cumsum(table[:, 1]) / np.cumsum(table[:, 0])
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(table[:, 1] / table[:, 0], ".", label="each network")
    axes.plot(share, label="so far")
    axes.set(xlabel="networks seen", ylabel="share of layer calls that compile", ylim=(0, 1))
    axes.legend()
    figure.savefig(options.picture, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    running.run(main)

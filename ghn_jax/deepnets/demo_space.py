"""The small space of architectures of the demo: DeepNets-1M networks made shallow, narrow and poor in shapes.

What costs time from a cold start is compiling, once for every distinct layer and shape. The demo therefore keeps the
cells of DeepNets-1M but few kernel sizes, one width and one image size.
"""

import dataclasses

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.held_out import architecture_hash
from ghn_jax.deepnets.liveness import live_cells
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.stream import ArchitectureStream, Made

TEST_SHARE = 5
"""One architecture in so many is kept for testing, by the hash of its graph: training never draws it."""

_SIMPLER = {
    "sep_conv_5x5": "sep_conv_3x3",
    "dil_conv_5x5": "dil_conv_3x3",
    "conv_7x1_1x7": "conv_1x1",
    "conv_5x5": "conv_3x3",
    "conv_7x7": "conv_3x3",
    "avg_pool_3x3": "max_pool_3x3",
}

_CANDIDATES = 1_000
"""Indices of DeepNets-1M tried for one position; each is usable with probability 1/5 or more."""


@dataclasses.dataclass
class DemoStream(ArchitectureStream):
    """As `ArchitectureStream`, from the demo's space.

    With `for_training` it gives the architectures that are trained on, without it those kept for testing.

    Attributes:
      width: C of all networks.
    """

    width: int = 16

    def _architecture(self, position: int) -> Made:
        if self.num_architectures is not None:
            position %= self.num_architectures
        held_out = 0
        for index in range(position * _CANDIDATES, (position + 1) * _CANDIDATES):
            args = simplified(sample_args(self.split, index, self.seed)[0])
            if args is None:
                continue
            if is_test(args) != self.for_training:
                args = args.replace(C=self.width, num_classes=self.num_classes, image_size=self.image_size)
                return Made(args, network_graph(args, f"demo-{self.split}/{index}"), held_out)
            held_out += self.for_training
        raise ValueError(f"no architecture of the demo among the {_CANDIDATES} candidates of position {position}")


def simplified(args: NetworkArgs) -> NetworkArgs | None:
    """A network of the demo made from one of DeepNets-1M, or None if it is not used.

    2 to 5 cells of at most 2 steps, 3 x 3 and 1 x 1 kernels, attention, constant width, always BN and global mean, one
    linear layer.
    """
    genotype = args.genotype
    if genotype.steps > 2:
        return None
    simpler = Genotype(
        _simplify(genotype.normal), genotype.normal_concat, _simplify(genotype.reduce), genotype.reduce_concat
    )
    small = args.replace(
        genotype=simpler,
        n_cells=2 + args.n_cells % 4,
        C_mult=1,
        ks=3,
        stem_type=0,
        stem_pool=False,
        preproc=True,
        norm="bnorm",
        glob_avg=True,
        fc_layers=1,
    )
    return None if live_cells(small) is None else small


def _simplify(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple((_SIMPLER.get(op, op), source) for op, source in steps)


def is_test(args: NetworkArgs) -> bool:
    """Whether an architecture is kept for testing: the same for all arguments of the same network, at any width."""
    return architecture_hash(args) % TEST_SHARE == 0

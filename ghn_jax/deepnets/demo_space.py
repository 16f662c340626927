"""The small space of architectures of the demo: DeepNets-1M networks made shallow, narrow and poor in shapes.

What costs time from a cold start is compiling, once for every distinct layer and shape. The demo therefore keeps the
cells of DeepNets-1M but few kernel sizes, one width and one image size.
"""

import dataclasses
import hashlib
import json

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.liveness import live_cells
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.stream import ArchitectureStream, MetaBatch
from ghn_jax.graphs import ArchGraph

TEST_SHARE = 5
"""One architecture in so many is kept for testing, by a hash of its arguments: training can never draw it."""

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

    Attributes:
      width: C of all networks.
      tests: whether architectures are those kept for testing.
    """

    width: int = 16
    tests: bool = False

    def at(self, position: int) -> MetaBatch | None:
        """The meta-batch that begins at a position, None if it has too many nodes; does not move the stream."""
        made = [self._architecture(place) for place in range(position, position + self.meta_batch)]
        args, graphs = zip(*made, strict=True)
        if sum(graph.num_nodes for graph in graphs) > self.max_nodes:
            return None
        return MetaBatch(position, position + self.meta_batch, args, graphs)

    def _architecture(self, position: int) -> tuple[NetworkArgs, ArchGraph]:
        if self.num_architectures is not None:
            position %= self.num_architectures
        for index in range(position * _CANDIDATES, (position + 1) * _CANDIDATES):
            args = simplified(sample_args(self.split, index, self.seed)[0])
            if args is not None and is_test(args) == self.tests:
                args = args.replace(C=self.width, num_classes=self.num_classes, image_size=self.image_size)
                return args, network_graph(args, f"demo-{self.split}/{index}")
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
    """Whether an architecture is kept for testing; width, classes and image size do not matter."""
    data = {key: value for key, value in args.to_json().items() if key not in ("C", "fc_dim")}
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).digest()
    return digest[0] % TEST_SHARE == 0

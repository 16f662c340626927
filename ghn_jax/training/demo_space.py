"""The small space of architectures of the demo: DeepNets-1M networks made shallow, narrow and poor in shapes.

What costs time from a cold start is compiling, once for every distinct layer and shape. The demo therefore keeps the
cells of DeepNets-1M but few kernel sizes, one width and one image size.
"""

import hashlib
import json

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step
from ghn_jax.deepnets.sampler import sample_architecture

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


def demo_architecture(index: int, seed: int, width: int, image_size: int, num_classes: int) -> NetworkArgs | None:
    """Architecture `index` of DeepNets-1M's training split, simplified; None if too little of it is left.

    2 to 5 cells of at most 2 steps, 3 x 3 and 1 x 1 kernels, constant width, always BN and global mean, one linear layer.
    """
    args = sample_architecture("train", index, seed).args
    if args is None or args.genotype.steps > 2 or args.is_transformer:
        return None
    genotype = args.genotype
    return args.replace(
        genotype=Genotype(
            _simplify(genotype.normal), genotype.normal_concat, _simplify(genotype.reduce), genotype.reduce_concat
        ),
        n_cells=2 + args.n_cells % 4,
        C=width,
        C_mult=1,
        ks=3,
        stem_type=0,
        stem_pool=False,
        preproc=True,
        norm="bnorm",
        glob_avg=True,
        fc_layers=1,
        num_classes=num_classes,
        image_size=image_size,
    )


def _simplify(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple((_SIMPLER.get(op, op), source) for op, source in steps)


def is_test(args: NetworkArgs) -> bool:
    """Whether an architecture is kept for testing; width, classes and image size do not matter."""
    data = {key: value for key, value in args.to_json().items() if key not in ("C", "fc_dim")}
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).digest()
    return digest[0] % TEST_SHARE == 0

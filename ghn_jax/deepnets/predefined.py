"""Hand-made architectures of the release: ViT, DARTS, and ResNet-50 as a graph."""

from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, Genotype, NetworkArgs
from ghn_jax.deepnets.graph import recipe_graph
from ghn_jax.deepnets.resnet import RESNET50_STAGES, ResidualNetwork
from ghn_jax.graphs.arch_graph import ArchGraph

VIT = NetworkArgs(
    genotype=Genotype(
        normal=(("none", 0), ("msa", 1)),
        normal_concat=(2,),
        reduce=(("none", 0), ("avg_pool_3x3", 1)),
        reduce_concat=(2,),
    ),
    n_cells=12,
    C=128,
    C_mult=1,
    preproc=False,
)
"""The vision transformer of the predefined split."""

DARTS = NetworkArgs(
    genotype=Genotype(
        normal=(
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1),
            ("skip_connect", 0),
            ("skip_connect", 0),
            ("dil_conv_3x3", 2),
        ),
        normal_concat=(2, 3, 4, 5),
        reduce=(
            ("max_pool_3x3", 0),
            ("max_pool_3x3", 1),
            ("skip_connect", 2),
            ("max_pool_3x3", 1),
            ("max_pool_3x3", 0),
            ("skip_connect", 2),
            ("skip_connect", 2),
            ("max_pool_3x3", 1),
        ),
        reduce_concat=(2, 3, 4, 5),
    ),
    n_cells=20,
    C=36,
    stem_type=1,
)
"""DARTS (Liu, Simonyan, Yang, ICLR 2019; second order), 20 cells."""


def resnet50_graph(num_classes: int = 10, image_size: int = 32, name: str = "ResNet-50") -> ArchGraph:
    """Graph of ResNet-50 (He et al., 2016), paths as torchvision names its parameters.

    Images up to 112 pixels get a 3x3 stem of stride 1 without max-pool.
    """
    resnet = ResidualNetwork(RESNET50_STAGES, num_classes, small_images=image_size <= LARGE_IMAGE_ABOVE)
    return recipe_graph(resnet, image_size, name)

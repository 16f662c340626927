"""Hand-made architectures of the release: ViT, DARTS, and ResNet-50 as a graph."""

from ghn_jax.deepnets.builder import GraphBuilder, Value
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, Genotype, NetworkArgs
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.vocabulary import Primitive

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

_RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width inside the bottlenecks, blocks


def resnet50_graph(num_classes: int = 10, image_size: int = 32, name: str = "ResNet-50") -> ArchGraph:
    """Graph of ResNet-50 (He et al., 2016), paths as torchvision names its parameters.

    Images up to 112 pixels get a 3x3 stem of stride 1 without max-pool.
    """
    build = GraphBuilder(name)
    large = image_size > LARGE_IMAGE_ABOVE
    kernel = (7, 7) if large else (3, 3)
    x = build.norm(build.conv(Value(0, 3, image_size), ("conv1",), 64, kernel, stride=2 if large else 1), ("bn1",))
    if large:
        x = build.pool(x, stride=2)
    for stage, (width, blocks) in enumerate(_RESNET50_STAGES, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _bottleneck(build, x, f"layer{stage}_{block}", width, stride)
    x = Value(build.node(int(Primitive.GLOB_AVG), x.node), x.width, 1)
    build.dense(x, ("fc",), num_classes, classifier=True)
    return build.finish()


def _bottleneck(build: GraphBuilder, x: Value, block: str, width: int, stride: int) -> Value:
    y = build.norm(build.conv(x, (block, "conv1"), width), (block, "bn1"))
    y = build.norm(build.conv(y, (block, "conv2"), width, (3, 3), stride=stride), (block, "bn2"))
    y = build.norm(build.conv(y, (block, "conv3"), 4 * width), (block, "bn3"))
    if x.width != y.width or stride > 1:
        x = build.conv(x, (block, "downsample_0"), 4 * width, stride=stride)
        x = build.norm(x, (block, "downsample_1"))
    return build.add(y, x)

"""Two small networks and a small hypernetwork for tests of the training side."""

import functools
from typing import Any

import jax

from ghn_jax.deepnets import Genotype, MetaBatch, NetworkArgs, network_graph
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn

IMAGE_SIZE = 8

CELLS = (
    Genotype((("conv_3x3", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,)),
    Genotype((("sep_conv_3x3", 0), ("cse", 1)), (2,), (("avg_pool_3x3", 0), ("conv_1x1", 1)), (2,)),
)


@functools.cache
def tiny_batch(count: int = 2) -> MetaBatch:
    """`count` networks of two cells, alternating between two genotypes; the second kind has another depth."""
    args = tuple(
        NetworkArgs(CELLS[i % 2], n_cells=2 + i % 2, C=4, C_mult=1, num_classes=10, image_size=IMAGE_SIZE)
        for i in range(count)
    )
    return MetaBatch(0, count, args, tuple(network_graph(a, f"tiny/{i}") for i, a in enumerate(args)))


@functools.cache
def tiny_ghn() -> tuple[GHN, Any]:
    """A hypernetwork of width 8 and its variables."""
    ghn = GHN(GHNConfig(max_shape=(4, 4, 3, 3), hid=8))
    return ghn, init_ghn(ghn, jax.random.key(0))


def images_and_labels(count: int = 16) -> tuple[jax.Array, jax.Array]:
    """Random images (B, 8, 8, 3) and labels (B,)."""
    key = jax.random.key(1)
    images = jax.random.normal(key, (count, IMAGE_SIZE, IMAGE_SIZE, 3))
    return images, jax.random.randint(jax.random.fold_in(key, 1), (count,), 0, 10)

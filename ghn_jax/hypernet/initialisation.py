"""Fresh weights of a hypernetwork."""

import jax
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.batching import Bucket, batch_graphs
from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.programs import Variables


def init_ghn(ghn: GHN, key: jax.Array) -> Variables:
    """Variables {"params": ...} drawn as PyTorch's defaults would be."""
    graph = ArchGraph.build("single input", [Primitive.INPUT], np.zeros((1, 4), np.int32), [], [])
    batch = batch_graphs([graph], (Bucket(1, 1),))
    return jax.jit(lambda key: ghn.init(key, batch, method=GHN.initialise))(key)

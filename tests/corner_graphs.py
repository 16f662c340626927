"""Corner cases of architecture graphs: a function of graphs is tried on every one of them."""

import functools

import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role

DENSE_NODES = 12


@functools.cache
def corner_graphs() -> dict[str, ArchGraph]:
    """Graphs by name; an empty one and several nodes without edges are errors and tested as such."""
    graphs = [single_node(), one_edge(), diamond(), position_table(), stacked(), dense()]
    return {graph.name: graph for graph in graphs}


def single_node() -> ArchGraph:
    return ArchGraph.build("single_node", [Primitive.INPUT], [[0] * 4], [], [])


def one_edge() -> ArchGraph:
    spec = ParamSpec(("conv", "kernel"), (3, 3, 3, 8), "HWIO", Role.KERNEL, 1)
    return ArchGraph.build("one_edge", [Primitive.INPUT, Primitive.CONV], [[0] * 4, [8, 3, 3, 3]], [(0, 1)], [spec])


def diamond() -> ArchGraph:
    types = [Primitive.INPUT, Primitive.CONV, Primitive.BN, Primitive.SUM, Primitive.CONV, Primitive.BIAS]
    shapes = [[0] * 4, [8, 3, 1, 1], [8, 1, 1, 1], [0] * 4, [10, 8, 1, 1], [10, 1, 1, 1]]
    edges = [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)]
    specs = [
        ParamSpec(("conv", "kernel"), (1, 1, 3, 8), "HWIO", Role.KERNEL, 1),
        ParamSpec(("norm", "scale"), (8,), "O", Role.SCALE, 2),
        ParamSpec(("norm", "bias"), (8,), "O", Role.NORM_BIAS, 2),
        ParamSpec(("head", "kernel"), (8, 10), "IO", Role.CLASSIFIER_KERNEL, 4),
        ParamSpec(("head", "bias"), (10,), "O", Role.CLASSIFIER_BIAS, 5),
    ]
    return ArchGraph.build("diamond", types, shapes, edges, specs)


def position_table() -> ArchGraph:
    types = [Primitive.INPUT, Primitive.CONV, Primitive.POS_ENC, Primitive.SUM]
    shapes = [[0] * 4, [8, 3, 3, 3], [1, 8, 11, 11], [0] * 4]
    specs = [
        ParamSpec(("conv", "kernel"), (3, 3, 3, 8), "HWIO", Role.KERNEL, 1),
        ParamSpec(("pos_enc", "table"), (1, 11, 11, 8), "OHWI", Role.POSITION, 2),
    ]
    return ArchGraph.build("position_table", types, shapes, [(0, 1), (1, 3), (2, 3)], specs)


def stacked() -> ArchGraph:
    """Two layers whose kernels are one leaf, as `nn.scan` stores them."""
    specs = [ParamSpec(("layers", "kernel"), (8, 8), "IO", Role.KERNEL, 1 + i, index=(i,)) for i in range(2)]
    types = [Primitive.INPUT, Primitive.CONV, Primitive.CONV]
    return ArchGraph.build("stacked", types, [[0] * 4, [8, 8, 1, 1], [8, 8, 1, 1]], [(0, 1), (1, 2)], specs)


def dense() -> ArchGraph:
    """Every edge that a graph in topological order can have."""
    edges = [(i, j) for j in range(DENSE_NODES) for i in range(j)]
    types = [Primitive.INPUT] + [Primitive.CONCAT] * (DENSE_NODES - 1)
    return ArchGraph.build("dense", types, np.zeros((DENSE_NODES, 4)), edges, [])


def random_graph(rng: np.random.Generator, num_nodes: int) -> ArchGraph:
    """Every node follows from an earlier one and leads to a later one; a few more edges at random."""
    edges = [(int(rng.integers(node)), node) for node in range(1, num_nodes)]
    edges += [(node, int(rng.integers(node + 1, num_nodes))) for node in range(num_nodes - 1)]
    types = [
        Primitive.INPUT,
        *rng.choice([Primitive.SUM, Primitive.CONCAT, Primitive.GLOB_AVG], num_nodes - 1).tolist(),
    ]
    return ArchGraph.build(f"random_{num_nodes}", types, np.zeros((num_nodes, 4)), edges, [])

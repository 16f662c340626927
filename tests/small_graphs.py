"""Small architecture graphs made by hand, with every role of tensors, for tests of the hypernetwork."""

import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role
from ghn_jax.hypernet import GHNConfig

TINY = GHNConfig(max_shape=(8, 8, 3, 3), hid=8, num_classes=11)


def mixed_graph(name: str = "mixed", width: int = 6, classes: int = 11) -> ArchGraph:
    """Convolutions, a depthwise one, norms, biases, a position table, a residual sum and a classifier."""
    types: list[Primitive] = [Primitive.INPUT]
    shapes: list[tuple[int, ...]] = [(0, 0, 0, 0)]
    edges: list[tuple[int, int]] = []
    params: list[ParamSpec] = []

    def add(kind: Primitive, shape: tuple[int, ...] = (0, 0, 0, 0), after: tuple[int, ...] = (-1,)) -> int:
        node = len(types)
        edges.extend((node - 1 if source == -1 else source, node) for source in after)
        types.append(kind)
        shapes.append(shape)
        return node

    def kernel(path: str, shape: tuple[int, ...], axes: str, node: int, role: Role = Role.KERNEL) -> None:
        params.append(ParamSpec((path, "kernel"), shape, axes, role, node))

    def vector(path: str, leaf: str, size: int, node: int, role: Role) -> None:
        params.append(ParamSpec((path, leaf), (size,), "O", role, node))

    def norm(path: str, size: int) -> int:
        node = add(Primitive.BN, (size, 1, 1, 1))
        vector(path, "scale", size, node, Role.SCALE)
        vector(path, "bias", size, node, Role.NORM_BIAS)
        return node

    kernel("stem", (3, 3, 3, width), "HWIO", add(Primitive.CONV, (width, 3, 3, 3)))
    stem = norm("stem_norm", width)
    table = add(Primitive.POS_ENC, (1, width, 11, 11), after=())
    params.append(ParamSpec(("pos_enc", "table"), (1, 11, 11, width), "OHWI", Role.POSITION, table))
    first_sum = add(Primitive.SUM, after=(stem, table))
    kernel("depthwise", (5, 5, 1, width), "HWIO", add(Primitive.SEP_CONV, (width, 1, 5, 5)))
    kernel("wide", (1, 3, width, 20), "HWIO", add(Primitive.CONV, (20, width, 1, 3)))
    last = norm("wide_norm", 20)
    kernel("back", (1, 1, 20, width), "HWIO", add(Primitive.CONV, (width, 20, 1, 1)))
    add(Primitive.SUM, after=(first_sum, len(types) - 1))
    add(Primitive.CONCAT, after=(last, len(types) - 1))
    add(Primitive.GLOB_AVG)
    kernel("hidden", (width + 20, 12), "IO", add(Primitive.CONV, (12, width + 20, 1, 1)))
    vector("hidden", "bias", 12, add(Primitive.BIAS, (12, 1, 1, 1)), Role.BIAS)
    kernel("head", (12, classes), "IO", add(Primitive.CONV, (classes, 12, 1, 1)), Role.CLASSIFIER_KERNEL)
    vector("head", "bias", classes, add(Primitive.BIAS, (classes, 1, 1, 1)), Role.CLASSIFIER_BIAS)
    return ArchGraph.build(name, types, shapes, edges, params)


def random_graph(seed: int, nodes: int, name: str | None = None) -> ArchGraph:
    """A random DAG of 1 x 1 convolutions without a classifier."""
    generator = np.random.default_rng(seed)
    edges = [(int(generator.integers(max(0, node - 5), node)), node) for node in range(1, nodes)]
    edges += [(int(generator.integers(0, node)), node) for node in range(1, nodes) if generator.random() < 0.2]
    leaves = set(range(nodes - 1)) - {source for source, _ in edges}
    edges += [(leaf, nodes - 1) for leaf in leaves]
    sizes = generator.integers(1, 9, (nodes, 2))
    shapes = [(0, 0, 0, 0), *((int(o), int(i), 1, 1) for o, i in sizes[1:])]
    params = [
        ParamSpec((f"layer_{node}", "kernel"), (shapes[node][1], shapes[node][0]), "IO", Role.KERNEL, node)
        for node in range(1, nodes)
    ]
    types = [Primitive.INPUT, *[Primitive.CONV] * (nodes - 1)]
    return ArchGraph.build(name or f"random {seed}", types, shapes, edges, params)

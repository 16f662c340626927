"""ArchGraphs of the architectures in graphs.json.gz, for tests that need graphs without the code that makes them."""

import functools
import math

from parity_data import fixture_graphs, fixture_params

from ghn_jax.deepnets.files.names import flax_path
from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role

AXES = {4: "HWIO", 2: "IO", 1: "O"}
POSITION_AXES = {3: "OHI", 2: "OI"}


def kernel_spec(name: str, oihw: list[int], role: Role, node: int) -> ParamSpec:
    """Spec of a tensor of the release: HWIO or (in, out) from its OIHW shape, position tables (1, H, W, C)."""
    path = flax_path(name, len(oihw))
    if role is Role.POSITION and len(oihw) < 4:
        return ParamSpec(path, tuple(oihw), POSITION_AXES[len(oihw)], role, node)
    if role is Role.POSITION:
        one, channels, height, width = oihw
        return ParamSpec(path, (one, height, width, channels), "OHWI", role, node)
    shape = (*oihw[2:], oihw[1], oihw[0]) if len(oihw) > 1 else tuple(oihw)
    return ParamSpec(path, shape, AXES[len(oihw)], role, node)


def _role(primitive: str, shape: list[int], is_classifier_weight: bool, is_classifier_bias: bool) -> Role:
    if primitive in ("bn", "ln"):
        return Role.SCALE
    if primitive == "pos_enc":
        return Role.POSITION
    if primitive == "bias":
        return Role.CLASSIFIER_BIAS if is_classifier_bias else Role.BIAS
    return Role.CLASSIFIER_KERNEL if is_classifier_weight and len(shape) > 1 else Role.KERNEL


@functools.cache
def release_names(name: str) -> dict[tuple[str, ...], str]:
    """Names in the release of an architecture's tensors, by path."""
    names = {}
    for cell in fixture_graphs()[name.split("@", maxsplit=1)[0]]["node_info"]:
        for _, tensor, primitive, shape, *_ in cell:
            if primitive not in ("max_pool", "avg_pool"):
                names[flax_path(tensor, len(shape))] = tensor
                if primitive in ("bn", "ln"):
                    bias = tensor.removesuffix("weight") + "bias"
                    names[flax_path(bias, 1)] = bias
    return names


def _node_shape(shape: list[int] | None) -> list[int]:
    """Shape of a node's tensor, of rank 4."""
    if not shape:
        return [0, 0, 0, 0]
    if len(shape) == 3:
        one, tokens, channels = shape
        return [one, channels, math.isqrt(tokens), math.isqrt(tokens)]
    return [*shape, *[1] * (4 - len(shape))]


@functools.cache
def arch_graph(name: str) -> ArchGraph:
    """Graph of an architecture, such as ``test/3``, ``torchvision/resnet50`` or ``val/2@7`` with 7 classes."""
    base, _, classes = name.partition("@")
    data = fixture_graphs()[base]
    shapes = [_node_shape(shape) for shape in data["param_shapes"]]
    specs = []
    for cell in data["node_info"]:
        for node, tensor, primitive, shape, *flags in cell:
            if primitive in ("max_pool", "avg_pool") or tensor.startswith("none."):
                continue
            if classes and any(flags):
                shape = [int(classes), *shape[1:]]  # noqa: PLW2901
                shapes[node] = _node_shape(shape)
            specs.append(kernel_spec(tensor, shape, _role(primitive, shape, *flags), node))
            if primitive in ("bn", "ln"):
                bias = tensor.removesuffix("weight") + "bias"
                specs.append(kernel_spec(bias, shape, Role.NORM_BIAS, node))
    types = [Primitive.from_label(label) for label in data["node_type"]]
    return ArchGraph.build(name, types, shapes, data["edges"], specs)


def cases(ghn: str) -> list[str]:
    """Architectures that the fixture has outputs of, for one GHN."""
    return [name for name, by_ghn in fixture_params().items() if ghn in by_ghn]

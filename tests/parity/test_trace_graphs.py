"""Graphs traced from our Flax models equal those of the release and those built from arguments.

Two things in the reference's graphs are not to be seen in a jaxpr as such, and the tracer settles them so:

- An adaptive average pooling (AlexNet, VGG) is a product with constant matrices here. Constant matrices whose rows are
  means of windows make a `glob_avg` node, whatever size they pool to, as in the reference. Without that node the
  predicted tensors (`ghn2_tiny`) would differ by up to 2.1 % (AlexNet) and 2.2 % (VGG-11) of their norm, in the median
  over tensors by 0.4 % and 0.3 %.
- SqueezeNet's last convolution is no classifier to the reference, because a mean over space follows it; its weights and
  bias are decoded like those of any convolution, and the last node is `glob_avg`. As a classifier they would come from
  other weights of the decoder and have nothing in common with the reference's.

ConvNeXt's layer scales are in no graph of the reference; the tracer lists them as kept.
"""

import collections

import pytest
from graph_compare import assert_isomorphic, assert_same_graph
from parity_data import HAS_PARITY, fixture_args, fixture_graphs, needs_parity

from ghn_jax.deepnets import NetworkArgs, network_graph
from ghn_jax.deepnets.predefined import DARTS, VIT
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.tracing import trace
from ghn_jax.networks import TargetNetwork, zoo

TORCHVISION = sorted(key for key in fixture_graphs() if key.startswith("torchvision/")) if HAS_PARITY else []
TRAINING_NETS_BY_DEFAULT = 15
DEEPNETS = [  # one trace takes a second; the rest of the training nets runs with -m slow
    pytest.param(key, marks=pytest.mark.slow)
    if key.startswith("train/") and int(key.partition("/")[2]) >= TRAINING_NETS_BY_DEFAULT
    else key
    for key in (sorted(fixture_args()) if HAS_PARITY else [])
]


def assert_equal_graphs(found: ArchGraph, expected: ArchGraph) -> None:
    """Fails unless both graphs are isomorphic with equal types, shapes and specs, layouts included."""
    colours = []
    for graph in (found, expected):
        specs = collections.defaultdict(list)
        for spec in graph.params:
            specs[spec.node].append((spec.path, spec.shape, spec.axes, spec.role.value, spec.index))
        rows = zip(graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True)
        colours.append([(kind, tuple(shape), tuple(sorted(specs[row]))) for row, (kind, shape) in enumerate(rows)])
    assert sorted(colours[0]) == sorted(colours[1])
    edges = [[(int(a), int(b)) for a, b in graph.edges] for graph in (found, expected)]
    assert len(edges[0]) == len(edges[1])
    assert_isomorphic(colours[0], edges[0], colours[1], edges[1], found.name)


def graph_args(key: str, **changes: int) -> NetworkArgs:
    """Arguments at the width of graphs.json.gz (training nets: the smallest; wide ones: four times the stored)."""
    args = NetworkArgs.from_json(fixture_args()[key], **changes)
    if key.startswith("train/"):
        return args.replace(C=32, fc_dim=64)
    return args.replace(C=4 * args.C) if key.startswith("wide/") else args


@needs_parity
@pytest.mark.parametrize("key", TORCHVISION)
def test_torchvision_model_equals_the_releases_graph(key: str):
    graph = trace(zoo.create(key.partition("/")[2], 10, small_images=True), (32, 32, 3))
    assert_same_graph(graph, fixture_graphs()[key])
    assert all(leaf.path[-1] == "layer_scale" for leaf in graph.kept)
    assert len(graph.kept) == (18 if "convnext" in key else 0)


@needs_parity
@pytest.mark.parametrize(("key", "args"), [("predefined/ViT", VIT), ("predefined/DARTS", DARTS)])
def test_predefined_network_equals_the_releases_graph(key: str, args: NetworkArgs):
    assert_same_graph(trace(TargetNetwork(args), (32, 32, 3), strict=True), fixture_graphs()[key])


@needs_parity
@pytest.mark.parametrize("key", DEEPNETS)
def test_target_network_equals_the_graph_from_its_arguments(key: str):
    args = graph_args(key)
    graph = trace(TargetNetwork(args), (32, 32, 3), strict=True)
    assert_equal_graphs(graph, network_graph(args, key))


@needs_parity
@pytest.mark.parametrize("key", ["test/3", "test/14"])
def test_target_network_for_large_images_equals_the_graph_from_its_arguments(key: str):
    args = graph_args(key, num_classes=1000, image_size=224)
    assert_equal_graphs(trace(TargetNetwork(args), (224, 224, 3), strict=True), network_graph(args, key))

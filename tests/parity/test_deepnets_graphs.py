"""Graphs built from arguments equal those that the release traces."""

import pytest
from graph_compare import assert_same_graph
from parity_data import HAS_PARITY, fixture_args, fixture_graphs, needs_parity

from ghn_jax.deepnets import NetworkArgs, network_graph, resnet50_graph
from ghn_jax.deepnets.predefined import DARTS, VIT


def traced_args(key: str, **changes: int) -> NetworkArgs:
    """Arguments at the width that the graphs of graphs.json.gz were traced at."""
    args = NetworkArgs.from_json(fixture_args()[key], **changes)
    split = key.partition("/")[0]
    if split == "train":  # widths of training nets are drawn at every use; these are the smallest
        return args.replace(C=32, fc_dim=64)
    return args.replace(C=4 * args.C) if split == "wide" else args


@needs_parity
@pytest.mark.parametrize("key", sorted(fixture_args()) if HAS_PARITY else [])
def test_equals_the_traced_graph(key: str):
    assert_same_graph(network_graph(traced_args(key), key), fixture_graphs()[key])


@needs_parity
@pytest.mark.parametrize("key", ["test/14", "test/3"])
def test_equals_the_traced_graph_for_large_images(key: str):
    args = traced_args(key, num_classes=1000, image_size=224)
    assert_same_graph(network_graph(args, key), fixture_graphs()[key.replace("test", "test_imagenet")])


@needs_parity
@pytest.mark.parametrize(("key", "args"), [("predefined/ViT", VIT), ("predefined/DARTS", DARTS)])
def test_equals_the_traced_graph_of_a_predefined_network(key: str, args: NetworkArgs):
    assert_same_graph(network_graph(args, key), fixture_graphs()[key])


@needs_parity
def test_equals_the_traced_graph_of_resnet50():
    assert_same_graph(resnet50_graph(), fixture_graphs()["torchvision/resnet50"])

"""One rule for sizes: an architecture's graph holds what its network computes, at every image size."""

import itertools

import chex
import jax
import jax.numpy as jnp
import pytest
from isomorphism import isomorphic
from tiny_networks import CELLS

from ghn_jax.deepnets import VIT, NetworkArgs, network_graph, resnet50_graph
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing import trace
from ghn_jax.networks import TargetNetwork, network_plan
from ghn_jax.networks.schedule import schedule

SIZES = (8, 9, 15, 28, 33, 64, 99, 113, 224)
"""Even and odd, divisible by 2, 4 and 3 or not, on both sides of the size from which stems are those of ImageNet."""

Shapes = dict[Path, tuple[int, ...]]


def network_shapes(args: NetworkArgs) -> Shapes:
    """Shapes that the network's layers take, each evaluated abstractly on what the one before it gives."""
    images = jax.ShapeDtypeStruct((2, args.image_size, args.image_size, 3), jnp.float32)
    steps = schedule(network_plan(args), images, False, False, None)
    return {path: leaf.shape for step in steps for path, leaf in step.params}


def assert_graph_is_the_network(args: NetworkArgs) -> None:
    specs = network_graph(args).params
    assert {spec.path: spec.shape for spec in specs} == network_shapes(args)


@pytest.mark.parametrize("size", SIZES)
def test_graphs_take_the_sizes_that_networks_take(size: int) -> None:
    for index in range(8):
        assert_graph_is_the_network(sample_args("train", index)[0].replace(image_size=size))
    assert_graph_is_the_network(VIT.replace(image_size=size))


@pytest.mark.slow  # 1,800 networks: a minute
@pytest.mark.parametrize("size", SIZES)
def test_graphs_of_200_networks_take_the_sizes_that_networks_take(size: int) -> None:
    for index in range(200):
        assert_graph_is_the_network(sample_args("train", index)[0].replace(image_size=size))


@pytest.mark.slow  # 43,400 graphs: a minute
def test_every_size_from_8_to_224_has_graphs() -> None:
    splits = ("train", "deep", "dense", "bnfree", "search")
    drawn = [sample_args(split, index)[0] for split in splits for index in range(40)]
    for args, size in itertools.product(drawn, range(8, 225)):
        assert network_graph(args.replace(image_size=size)).num_classes == 10


@pytest.mark.parametrize("size", [8, 27, 28, 33])
def test_a_traced_network_is_its_graph(size: int) -> None:
    """The shifted halves of odd sides, paddings and poolings as a tracer sees them, with reductions on both inputs."""
    for cell in CELLS:
        for stem, pool, mean in ((0, True, True), (1, False, False)):
            args = NetworkArgs(cell, n_cells=4, C=8, stem_type=stem, stem_pool=pool, glob_avg=mean, image_size=size)
            traced = trace(TargetNetwork(args), (size, size, 3))
            graph = network_graph(args)
            assert isomorphic(traced, graph)
            assert {s.path: s.shape for s in traced.params} == {s.path: s.shape for s in graph.params}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_traced_training_networks_are_their_graphs(size: int) -> None:
    for index in range(6):
        args = sample_args("train", index)[0].replace(image_size=size)
        assert isomorphic(trace(TargetNetwork(args), (size, size, 3)), network_graph(args))


@pytest.mark.parametrize("size", [9, 28, 113])
def test_a_residual_network_has_a_graph_of_any_size(size: int) -> None:
    graph, other = resnet50_graph(10, size, "odd"), resnet50_graph(10, 112 if size < 113 else 224, "even")
    chex.assert_trees_all_equal(graph.node_shapes, other.node_shapes)

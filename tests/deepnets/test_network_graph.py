"""Graphs from arguments: what is kept, what is contracted, what is refused."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from graph_compare import specs_by_path
from hypothesis import given, settings
from network_args import network_args, small_args

from ghn_jax.deepnets import VIT, Genotype, NetworkArgs, network_graph, parameter_count, resnet50_graph
from ghn_jax.deepnets.count import product_count
from ghn_jax.deepnets.liveness import reaches_output
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.graphs import ArchGraph, Primitive, Role
from ghn_jax.networks import network_plan
from ghn_jax.networks.schedule import schedule

CONV = ("conv_1x1", 0)


def labels(graph: ArchGraph) -> list[str]:
    return [Primitive(kind).label for kind in graph.node_types.tolist()]


@settings(max_examples=300, deadline=None)
@given(network_args())
def test_random_arguments_give_valid_graphs(args: NetworkArgs):
    if not reaches_output(args):
        with pytest.raises(ValueError, match=r"'random'.*outputs nothing"):
            network_graph(args, "random")
        return
    graph = network_graph(args, "random")  # ArchGraph checks order, paths and specs
    assert labels(graph)[-2:] == ["conv", "bias"]
    assert graph.num_classes == args.num_classes
    assert len({spec.path for spec in graph.params}) == len(graph.params)
    assert graph.num_params <= parameter_count(args)
    roles = [spec.role for spec in graph.params]
    assert roles.count(Role.CLASSIFIER_KERNEL) == roles.count(Role.CLASSIFIER_BIAS) == 1
    merges = np.isin(graph.node_types, [Primitive.SUM, Primitive.CONCAT])
    assert (np.bincount(graph.edges[:, 1], minlength=graph.num_nodes)[merges] > 1).all()
    norms = np.isin(graph.node_types, [Primitive.BN, Primitive.LN]).sum()
    assert roles.count(Role.SCALE) == roles.count(Role.NORM_BIAS) == norms
    for spec in graph.params:
        if spec.role is not Role.NORM_BIAS:
            assert spec.canonical_shape == tuple(graph.node_shapes[spec.node])


@settings(max_examples=100, deadline=None)
@given(network_args())
def test_without_dead_operations_the_graph_holds_every_weight(args: NetworkArgs):
    steps = args.genotype.steps
    ops = tuple((op if op != "none" else "conv_3x3", index) for op, index in args.genotype.normal)
    all_steps = tuple(range(2, 2 + steps))
    used = small_args((("conv_1x1", 0), ("conv_1x1", 1), *ops[2:]), all_steps)
    used = args.replace(genotype=used.genotype, preproc=True, n_cells=max(args.n_cells, 2))
    graph = network_graph(used)
    assert graph.num_params == parameter_count(used)


def test_a_sum_of_one_thing_is_contracted():
    graph = network_graph(small_args((("skip_connect", 0), ("skip_connect", 0)), preproc=False, norm=None))
    assert labels(graph) == ["input", "conv", "glob_avg", "conv", "bias"]


def test_operations_that_reach_nothing_are_left_out():
    steps = (("conv_3x3", 0), ("none", 0), ("conv_5x5", 1), ("none", 0))
    graph = network_graph(small_args(steps, (3,), norm=None))
    kernels = [tuple(shape) for shape in graph.node_shapes[:, 2:].tolist()]
    assert (5, 5) in kernels
    assert {spec.path[1] for spec in graph.params if spec.path[0] == "cells_0"} == {"preprocess1", "ops_2"}


def test_a_zero_step_still_takes_channels():
    steps = (("conv_3x3", 0), ("none", 0), ("none", 1), ("none", 0))
    graph = network_graph(small_args(steps, (2, 3)))
    assert specs_by_path(graph)["classifier_0", "kernel"].shape == (16, 10)
    assert "concat" not in labels(graph)


def test_an_unused_stem_is_left_out():
    """The second stem of type 1 feeds the first cell's second input only."""
    graph = network_graph(small_args((CONV, CONV), stem_type=1))
    assert not any(spec.path[0] == "stem1_1" for spec in graph.params)
    graph = network_graph(small_args((CONV, CONV), stem_type=1, n_cells=2))
    assert any(spec.path[0] == "stem1_1" for spec in graph.params)


def test_one_cell_before_a_reduction_is_wide_already_without_preproc():
    args = small_args((("conv_1x1", 1), ("none", 0)), preproc=False, C_mult=2, n_cells=4)
    graph = network_graph(args)
    widths = [specs_by_path(graph)[f"cells_{cell}", "ops_0", "op_1", "kernel"].shape[-1] for cell in range(4)]
    assert widths == [16, 32, 32, 32]
    assert graph.num_params == parameter_count(args)


def test_position_table_fits_the_tokens():
    for size, grid in ((32, 11), (224, 14), (28, 10)):
        table = specs_by_path(network_graph(VIT.replace(image_size=size)))["pos_enc", "table"]
        assert table.shape == (1, grid, grid, 128)


def test_large_images_pool_the_stem_of_resnet50():
    graph = resnet50_graph(1000, 224)
    assert labels(graph)[:4] == ["input", "conv", "bn", "max_pool"]
    assert graph.num_params == 25_557_032  # as torchvision counts


def test_a_cell_without_output_is_refused():
    with pytest.raises(ValueError, match=r"'dead'.*outputs nothing"):
        network_graph(small_args((("none", 0), ("none", 1))), "dead")


def test_widths_that_do_not_agree_are_refused():
    pools = small_args((("max_pool_3x3", 0), ("none", 1)), preproc=False, C_mult=2, n_cells=4)
    with pytest.raises(ValueError, match=r"'pools': cells_1 ops_0 max_pool_3x3 cannot turn 8 channels into 32"):
        network_graph(pools, "pools")


def test_sizes_that_do_not_agree_are_refused():
    """A step beside an input that a reduction hands on as it came."""
    args = small_args((CONV, ("conv_1x1", 1)), (0, 2), n_cells=3)
    with pytest.raises(
        ValueError, match=r"'joined': cells_1 concat joins outputs of the sizes \[\(16, 16\), \(32, 32\)\]"
    ):
        network_graph(args, "joined")


def test_sums_of_unequal_sizes_are_refused():
    """A reduction that hands on its input as it came."""
    args = small_args((CONV, ("conv_1x1", 1)), (0,), n_cells=6)
    with pytest.raises(ValueError, match=r"'sums': cells_\d sum adds 16 channels of 32 x 32 to 16 channels of 16 x 16"):
        network_graph(args.replace(genotype=mixed(args.genotype)), "sums")


def mixed(genotype: Genotype) -> Genotype:
    return dataclasses.replace(genotype, normal_concat=(2,))


@pytest.mark.parametrize("split", ["train", "deep", "dense", "bnfree"])
def test_products_are_those_of_the_layers_that_run(split: str) -> None:
    for index in range(4):
        args = sample_args(split, index)[0].replace(image_size=12)
        images = jax.ShapeDtypeStruct((2, 12, 12, 3), np.float32)
        products = sum(
            math.prod(step.key.inputs[0].shape[:-1]) * sum(math.prod(leaf.shape) for _, leaf in step.params)
            for step in schedule(network_plan(args), images, False, False, None)
        )
        assert 2 * product_count(args) == products > 0

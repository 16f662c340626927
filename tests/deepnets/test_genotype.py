"""Genotypes, arguments and parameter names, to and from the release's forms."""

import json
from typing import Any

import pytest
from hypothesis import given
from network_args import network_args, small_args

from ghn_jax.deepnets import Genotype, NetworkArgs, network_graph
from ghn_jax.deepnets.files.names import flax_path, release_name
from ghn_jax.deepnets.liveness import reaches_output
from ghn_jax.graphs import Role

STEPS = (("conv_1x1", 0), ("none", 1))


@given(network_args())
def test_json_keeps_everything(args: NetworkArgs):
    data = json.loads(json.dumps(args.to_json()))
    again = NetworkArgs.from_json(data, num_classes=args.num_classes, image_size=args.image_size)
    assert again == args
    assert hash(again) == hash(args)


@given(network_args())
def test_names_of_the_release_are_the_inverse_of_paths(args: NetworkArgs):
    for spec in network_graph(args).params if reaches_output(args) else ():
        if spec.role is not Role.NORM_BIAS:
            assert flax_path(release_name(spec.path), spec.rank) == spec.path


@pytest.mark.parametrize(
    ("name", "rank", "path"),
    [
        ("cells.0._ops.1.op.2.weight", 1, ("cells_0", "ops_1", "op_2", "scale")),
        ("cells.12.preprocess0.conv_1.weight", 4, ("cells_12", "preprocess0", "conv_1", "kernel")),
        ("cells.3._ops.1.to_out.0.bias", 1, ("cells_3", "ops_1", "to_out_0", "bias")),
        ("cells.3._ops.1.ff.net.3.weight", 2, ("cells_3", "ops_1", "ff", "net_3", "kernel")),
        ("pos_enc.weight", 4, ("pos_enc", "table")),
        ("stem0.3.weight", 4, ("stem0_3", "kernel")),
    ],
)
def test_names(name: str, rank: int, path: tuple[str, ...]):
    assert flax_path(name, rank) == path
    assert release_name(path) == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normal": ()}, "normal needs two ops a step, got 0"),
        ({"reduce": (("conv_1x1", 0),)}, "reduce needs two ops a step, got 1"),
        ({"normal": (("conv_9x9", 0), ("none", 0))}, "unknown op 'conv_9x9' in normal; known ops: none"),
        ({"normal": (("conv_1x1", 0), ("none", 2))}, r"op 1 \(none\) of normal takes input 2"),
        ({"reduce_concat": ()}, r"reduce_concat \[\] names no step"),
        ({"normal_concat": (3,)}, r"normal_concat \[3\] names no step"),
    ],
)
def test_impossible_genotypes_are_refused(changes: dict[str, Any], message: str):
    fields: dict[str, Any] = {"normal": STEPS, "normal_concat": (2,), "reduce": STEPS, "reduce_concat": (2,)}
    with pytest.raises(ValueError, match=message):
        Genotype(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, "norm must be 'bnorm' or None, got 'layer'"),
        ({"stem_type": 2}, "stem_type must be 0 or 1, got 2"),
        ({"n_cells": 0}, "n_cells must be at least 1, got 0"),
        ({"image_size": -1}, "image_size must be at least 1, got -1"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        small_args(STEPS, **changes)


@pytest.mark.parametrize("key", ["genotype", "n_cells"])
def test_missing_keys_are_named(key: str):
    data = small_args(STEPS).to_json()
    del data[key]
    with pytest.raises(ValueError, match=f"network arguments: '{key}' is missing"):
        NetworkArgs.from_json(data)
    data = small_args(STEPS).to_json()
    del data["genotype"]["reduce"]
    with pytest.raises(ValueError, match="genotype: 'reduce' is missing"):
        NetworkArgs.from_json(data)


def test_reductions_stand_at_one_and_two_thirds():
    places = [small_args(STEPS, n_cells=cells).reduction_cells for cells in (1, 2, 3, 4, 12)]
    assert places == [(), (1,), (1, 2), (1, 2), (4, 8)]

"""Dataset files that the release wrote."""

import copy

import numpy as np
import pytest
from parity_data import PARITY, fixture_args, needs_parity

from ghn_jax.deepnets import DatasetReader, NetworkArgs, parameter_count
from ghn_jax.graphs import Role
from ghn_jax.graphs.canonical import canonical_hash

pytestmark = needs_parity

SPLITS = {"train": 60, "val": 12, "test": 24, "wide": 6, "deep": 6, "dense": 6, "bnfree": 8}


def reader(split: str) -> DatasetReader:
    part = "train" if split == "train" else "eval"
    return DatasetReader(PARITY / "deepnets" / f"deepnets1m_{part}.hdf5", split)


def test_five_graphs_have_their_labels_on_the_right_rows():
    assert {split: len(reader(split)) for split in SPLITS} == SPLITS
    assert sum(reader(split).count_agreeing() for split in SPLITS) == 5


@pytest.mark.parametrize("split", SPLITS)
def test_stored_pairs_hold_what_the_networks_hold(split: str):
    nets = reader(split)
    for index in range(len(nets)):
        stored, graph = nets.stored(index), nets.graph(index)
        assert stored.num_nodes == graph.num_nodes == nets.record(index)["num_nodes"]
        assert np.array_equal(np.bincount(stored.node_types), np.bincount(graph.node_types))
        assert len(stored.params) == len(graph.params)
        assert len({spec.node for spec in stored.params}) == len({spec.node for spec in graph.params})
        assert len(stored.edges) == graph.num_edges
        assert stored.distances().sum() == graph.distances().sum()
        for spec in stored.params:
            if spec.role is not Role.NORM_BIAS:
                assert spec.canonical_shape == tuple(stored.node_shapes[spec.node])


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("test", 3), ("dense", 1), ("bnfree", 2)])
def test_any_other_op_or_input_is_refused(split: str, index: int, monkeypatch: pytest.MonkeyPatch):
    """Though most rows have wrong labels: unless the changed arguments describe the same network."""
    nets = reader(split)
    record, network = nets.record(index), canonical_hash(nets.graph(index))
    refused, same = 0, 0
    for cell in ("normal", "reduce"):
        for place, (op, source) in enumerate(record["genotype"][cell]):
            others = [[other, source] for other in ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "conv_3x3")]
            others += [[op, other] for other in range(2 + place // 2)]
            for other in others:
                if other == [op, source]:
                    continue
                changed = copy.deepcopy(record)
                changed["genotype"][cell][place] = other
                nets = reader(split)  # each compares every network once
                monkeypatch.setattr(nets, "record", lambda _, changed=changed: changed)
                try:
                    found = canonical_hash(nets.graph(index))
                except ValueError:
                    refused += 1
                    continue
                assert found == network, (cell, place, other)
                same += 1
    assert refused > 5 * same


@pytest.mark.parametrize(("task", "size"), [("cifar10", 32), ("imagenet", 224)])
def test_weights_are_counted_as_the_release_counts(task: str, size: int):
    for key, record in fixture_args().items():
        args = NetworkArgs.from_json(record, C=32, fc_dim=256, image_size=size)
        assert parameter_count(args) == record["num_params"][task], key

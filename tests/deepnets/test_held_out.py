"""What is held out of training: no training network is the same as one of an evaluation split, in any guise."""

import itertools
from typing import Any

import pytest
from isomorphism import Collection, isomorphic
from network_args import small_args

from ghn_jax.deepnets import SPLITS, VIT, ArchitectureStream, NetworkArgs, network_graph
from ghn_jax.deepnets.demo_space import DemoStream, is_test
from ghn_jax.deepnets.genotype import Genotype, Step
from ghn_jax.deepnets.held_out import (
    architecture_hash,
    comparable,
    evaluation_networks,
    held_out_count,
)
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.canonical import signature

TWIN = (1, 899)
"""Seed and number of a training draw that is the same network as number 73 of `val`, with other arguments."""


def swapped(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The two ops of every step in the other order."""
    return tuple(op for place in range(0, len(steps), 2) for op in (steps[place + 1], steps[place]))


def guises(args: NetworkArgs) -> list[NetworkArgs]:
    """Other arguments of the same network."""
    genotype = args.genotype
    unused = Genotype(genotype.normal, genotype.normal_concat, swapped(genotype.reduce), genotype.reduce_concat)
    return [
        args.replace(genotype=Genotype(swapped(genotype.normal), genotype.normal_concat, *_reduce(unused))),
        args.replace(C=64, fc_dim=128, num_classes=100),
        args.replace(image_size=224),
    ]


def _reduce(genotype: Genotype) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    return genotype.reduce, genotype.reduce_concat


@pytest.mark.parametrize("split", ["train", "dense", "bnfree"])
def test_other_arguments_of_the_same_network_have_its_hash(split: str) -> None:
    for index in range(30):
        args, _ = sample_args(split, index)
        assert {architecture_hash(other) for other in guises(args)} == {architecture_hash(args)}
        graph = network_graph(args)
        assert all(signature(network_graph(other)) == signature(graph) for other in guises(args))


def test_ops_without_effect_do_not_count() -> None:
    cell = (("conv_3x3", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("max_pool_3x3", 1))
    dead = (*cell[:2], ("dil_conv_3x3", 1), ("avg_pool_3x3", 0))
    first, second, other = (
        small_args(steps, n_cells=4).replace(genotype=Genotype(steps, concat, steps, concat))
        for steps, concat in ((cell, (2,)), (dead, (2,)), (dead, (2, 3)))
    )
    assert architecture_hash(first) == architecture_hash(second)
    assert architecture_hash(first) != architecture_hash(other)


def test_the_kind_of_cell_that_a_network_does_not_use_does_not_count() -> None:
    normal, one, other = ((("conv_3x3", 0), (op, 1)) for op in ("skip_connect", "sep_conv_5x5", "max_pool_3x3"))
    short, long = (
        [
            small_args(normal, n_cells=cells).replace(genotype=Genotype(normal, (2,), reduce, (2,)))
            for reduce in (one, other)
        ]
        for cells in (1, 4)
    )
    assert architecture_hash(short[0]) == architecture_hash(short[1])
    assert architecture_hash(long[0]) != architecture_hash(long[1])


def evaluation_graphs() -> list[ArchGraph]:
    """All evaluation networks at the width at which they are compared."""
    drawn = [
        (f"{split}/{index}", sample_args(split, index)[0])
        for split in SPLITS
        if split not in ("predefined", "wide")
        for index in range(held_out_count(split))
    ]
    return [network_graph(comparable(args), name) for name, args in (*drawn, ("predefined/ViT", VIT))]


def test_the_evaluation_networks_are_1801_different_ones() -> None:
    assert len(evaluation_networks().hashes) == 1801
    assert {split: held_out_count(split) for split in ("train", "search", "deep")} == {
        "train": 0,
        "search": 500,
        "deep": 100,
    }
    wide, test = (sample_args(split, 7)[0] for split in ("wide", "test"))
    assert architecture_hash(wide) == architecture_hash(test)
    for args in (wide, VIT, sample_args("search", 499)[0]):
        assert evaluation_networks().holds(args, network_graph(args))
    beyond = sample_args("search", 500)[0]
    assert not evaluation_networks().holds(beyond, network_graph(beyond))


def test_a_training_network_that_is_one_of_val_is_drawn_again() -> None:
    seed, number = TWIN
    twin, of_val = sample_args("train", number, seed)[0], sample_args("val", 73)[0]
    assert twin.genotype != of_val.genotype
    assert isomorphic(network_graph(comparable(twin)), network_graph(comparable(of_val)))
    found = {
        for_training: next(
            ArchitectureStream(seed=seed, position=number, meta_batch=1, max_nodes=10_000, for_training=for_training)
        )
        for for_training in (True, False)
    }
    assert found[False].args[0].genotype == twin.genotype
    assert found[False].held_out == 0
    assert found[True].held_out == 1
    assert not isomorphic(found[True].graphs[0], found[False].graphs[0])
    assert found[True].graphs[0].name == f"train/{number}"
    stream = ArchitectureStream(seed=seed, position=number - 3, meta_batch=2, max_nodes=10_000)
    assert [next(stream).held_out for _ in range(3)] == [0, 1, 0]
    assert stream.held_out == 1


def test_evaluation_splits_hold_nothing_out() -> None:
    for split in ("val", "deep"):
        batch = next(ArchitectureStream(split, meta_batch=3, max_nodes=10_000))
        assert batch.args == tuple(sample_args(split, index)[0] for index in range(3))
        assert batch.held_out == 0
    kept = next(ArchitectureStream("search", meta_batch=1, for_training=False)).args[0]
    assert kept.genotype == sample_args("search", 0)[0].genotype
    assert next(ArchitectureStream("search", meta_batch=1)).held_out == 1


def train_networks(count: int, seed: int) -> list[ArchGraph]:
    stream = ArchitectureStream(seed=seed, meta_batch=8)
    batches = itertools.islice(stream, count // 8)
    return [network_graph(comparable(args)) for batch in batches for args in batch.args]


def check_train(count: int, seed: int) -> None:
    held_out = Collection(evaluation_graphs())
    found = [held_out.find(graph) for graph in train_networks(count, seed)]
    assert len(found) >= count - 8
    assert set(found) == {None}
    twin = network_graph(comparable(sample_args("train", TWIN[1], TWIN[0])[0]))
    assert held_out.find(twin) == "val/73"


def test_no_training_network_is_an_evaluation_network() -> None:
    check_train(1_200, TWIN[0])


@pytest.mark.slow
def test_none_of_20_000_training_networks_is_an_evaluation_network() -> None:
    check_train(20_000, TWIN[0])


DEMO: dict[str, Any] = {"image_size": 8, "width": 16}


def demo_test_networks() -> list[ArchGraph]:
    tests = DemoStream(meta_batch=1, for_training=False, **DEMO)
    return [graph for batch in itertools.islice(tests, 50) for graph in batch.graphs]


def check_demo(count: int, seed: int) -> None:
    held_out = Collection(demo_test_networks())
    stream = DemoStream(seed=seed, meta_batch=4, **DEMO)
    trained = [graph for batch in itertools.islice(stream, count // 4) for graph in batch.graphs]
    assert len(trained) == count
    assert [name for graph in trained if (name := held_out.find(graph))] == []
    assert stream.held_out > count / 8
    # The comparison does find what the rule keeps out: of other draws that test, many are among the 50.
    others = DemoStream(seed=seed + 100, meta_batch=1, for_training=False, **DEMO)
    again = [held_out.find(graph) for batch in itertools.islice(others, 1_000) for graph in batch.graphs]
    assert sum(name is not None for name in again) > 10


def test_no_training_network_of_the_demo_is_one_of_its_tests() -> None:
    check_demo(2_000, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_none_of_20_000_training_networks_of_the_demo_is_one_of_its_tests(seed: int) -> None:
    check_demo(20_000, seed)


def test_guises_of_the_demo_test_alike() -> None:
    """What the arguments' own hash got wrong: 17 or 18 of 50 networks were trained on in disguise."""
    for batch in itertools.islice(DemoStream(meta_batch=1, for_training=False, **DEMO), 50):
        args = batch.args[0]
        others = guises(args)
        assert all(is_test(other) for other in others)
        assert isomorphic(network_graph(others[0]), batch.graphs[0])

"""Architectures of a run: the demo's space, dataset files, positions."""

import dataclasses
import pathlib
import pickle

import networkx
import numpy as np
import pytest
from parity_data import PARITY, needs_parity

from ghn_jax.deepnets import DatasetReader, MetaBatch, NetworkArgs
from ghn_jax.deepnets.demo_space import DemoStream, is_test, simplified
from ghn_jax.deepnets.held_out import architecture_hash
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.sources import training_stream
from ghn_jax.evaluation.architectures import evaluation_architectures
from ghn_jax.metatraining.config import ArchitectureConfig, Task
from ghn_jax.networks import zoo

TASK = Task(10, 8)
DEMO = ArchitectureConfig(split="demo", meta_batch=2, sampler_workers=0)


def arguments(batches) -> list[str]:
    return [str(args.replace(fc_dim=64)) for batch in batches for args in batch.args]


def test_the_demo_validates_and_tests_on_what_it_holds_out() -> None:
    tested, validated = (
        [args for _, args, _ in evaluation_architectures(DEMO, TASK, split, count) if isinstance(args, NetworkArgs)]
        for split, count in (("test", 50), ("val", 10))
    )
    assert (len(tested), len(validated)) == (50, 10)
    assert all(is_test(args) for args in (*tested, *validated))
    assert len({architecture_hash(args) for args in tested}) == 45  # the rest repeats one of them: it is a small space
    stream = training_stream(DEMO, TASK, seed=0, position=0)
    assert not any(is_test(args) for _ in range(20) for args in next(stream).args)


def test_whether_an_architecture_tests_does_not_depend_on_its_width() -> None:
    drawn = [args for index in range(40) if (args := simplified(sample_args("train", index)[0])) is not None]
    assert len(drawn) > 10
    for args in drawn:
        assert is_test(args) == is_test(args.replace(C=64, fc_dim=128, image_size=32, num_classes=100))
    assert {is_test(args) for args in drawn} == {True, False}


def test_demo_networks_are_small() -> None:
    for _, args, graph in evaluation_architectures(DEMO, TASK, "test", 20):
        assert 2 <= args.n_cells <= 5
        assert args.C == 16
        assert graph.num_classes == 10
        kernels = {tuple(spec.canonical_shape[2:]) for spec in graph.params if spec.path[-1] == "kernel"}
        assert kernels <= {(1, 1), (3, 3)}


@pytest.mark.parametrize("config", [DEMO, ArchitectureConfig(meta_batch=2, sampler_workers=0)])
def test_a_stream_goes_on_from_a_position(config: ArchitectureConfig) -> None:
    stream = training_stream(config, Task(10, 32), seed=1, position=0)
    batches = [next(stream) for _ in range(4)]
    again = training_stream(config, Task(10, 32), seed=1, position=batches[1].end)
    assert next(again).args == batches[2].args
    assert next(again).args == batches[3].args
    other = training_stream(config, Task(10, 32), seed=2, position=0)
    assert next(other).args != batches[0].args


def test_demo_meta_batches_hold_no_more_nodes_than_allowed() -> None:
    stream = DemoStream("train", 0, max_nodes=150, meta_batch=2, image_size=8)
    assert max(sum(g.num_nodes for g in next(stream).graphs) for _ in range(20)) <= 150
    assert stream.passed_over > 0
    assert next(pickle.loads(pickle.dumps(stream))).args == next(stream).args


def test_few_architectures_come_again() -> None:
    stream = training_stream(dataclasses.replace(DEMO, num_architectures=4), TASK, seed=0, position=0)
    assert len(set(arguments(next(stream) for _ in range(10)))) == 4


RELEASE = PARITY / "deepnets"


def release_batches(path: pathlib.Path) -> list[MetaBatch]:
    config = ArchitectureConfig(architecture_file=path, meta_batch=2, max_nodes=100_000, sampler_workers=0)
    stream = training_stream(config, Task(10, 32), seed=0, position=0)
    batches = [next(stream) for _ in range(31)]
    assert [batch.start for batch in batches] == list(range(0, 62, 2))
    return batches


@needs_parity
def test_a_file_of_the_release_comes_in_a_new_order_every_round(tmp_path: pathlib.Path) -> None:
    for name in ("deepnets1m_train.hdf5", "deepnets1m_train_meta.json"):
        (tmp_path / name).write_bytes((RELEASE / name).read_bytes())
    batches = release_batches(tmp_path / "deepnets1m_train.hdf5")
    names = [graph.name for batch in batches for graph in batch.graphs]
    assert sorted(names[:60]) == sorted(f"train/{number}" for number in range(60))
    assert set(names[60:]) < set(names[:60])
    assert {args.C for batch in batches for args in batch.args} > {32}
    assert sum(batch.held_out for batch in batches) == 0


@needs_parity
def test_training_leaves_out_what_the_evaluation_file_beside_it_holds() -> None:
    """The release's generator seeds its splits alike: the first networks of `train` come again in `test` and others."""
    path = RELEASE / "deepnets1m_train.hdf5"
    held_out = set()
    for split in ("val", "test", "wide", "deep", "dense", "bnfree"):
        reader = DatasetReader(path.with_name("deepnets1m_eval.hdf5"), split)
        held_out |= {architecture_hash(reader.args(number)) for number in range(len(reader))}
    train = DatasetReader(path, "train")
    usable = {number for number in range(60) if architecture_hash(train.args(number)) not in held_out}
    assert 0 < len(usable) < 60
    batches = release_batches(path)
    used = [graph.name for batch in batches for graph in batch.graphs]
    assert set(used) <= {f"train/{number}" for number in usable}
    assert len(set(used)) > 0.9 * len(usable)
    assert sum(batch.held_out for batch in batches) >= 60 - len(usable)


@needs_parity
def test_evaluation_splits_come_from_the_file_beside_the_training_file() -> None:
    config = ArchitectureConfig(architecture_file=RELEASE / "deepnets1m_train.hdf5")
    for split, count in (("deep", 6), ("val", 12)):
        chosen = list(evaluation_architectures(config, Task(10, 32), split, 500))
        assert [graph.name for _, _, graph in chosen] == [f"{split}/{number}" for number in range(count)]


def test_a_missing_file_is_told_before_training() -> None:
    config = ArchitectureConfig(architecture_file=pathlib.Path("none.hdf5"))
    with pytest.raises(ValueError, match=r"none\.hdf5"):
        training_stream(config, Task(10, 32), seed=0, position=0)


def test_predefined_are_resnet_50_and_the_vision_transformer() -> None:
    both = list(evaluation_architectures(ArchitectureConfig(), Task(10, 32), "predefined", 500))
    (_, resnet, _), (_, vit, _) = both
    assert resnet == zoo.create("resnet50", 10, small_images=True)
    assert isinstance(vit, NetworkArgs)
    assert vit.is_transformer
    assert [graph.name for _, _, graph in both] == ["predefined/ResNet-50", "predefined/ViT"]
    (only,) = evaluation_architectures(ArchitectureConfig(), Task(1000, 224), "predefined", 1)
    assert only[1] == zoo.create("resnet50", 1000)


def test_unknown_splits_are_named() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        training_stream(ArchitectureConfig(split="nonsense"), TASK, seed=0, position=0)
    with pytest.raises(ValueError, match="nonsense"):
        next(evaluation_architectures(ArchitectureConfig(), TASK, "nonsense", 1))


def test_widths_are_drawn_for_every_use() -> None:
    config = ArchitectureConfig(meta_batch=1, num_architectures=1, sampler_workers=0)
    stream = training_stream(config, Task(10, 32), seed=3, position=0)
    drawn = [next(stream).args[0] for _ in range(30)]
    assert len({args.genotype for args in drawn}) == 1
    assert len({(args.C, args.fc_dim) for args in drawn}) > 3
    assert all(args.C in np.arange(32, 129, 16) for args in drawn)


def test_costly_networks_are_evaluated_as_often_as_others() -> None:
    plain, other = ArchitectureConfig(), ArchitectureConfig(costly_above=1, mislabelled=True)
    chosen = [[graph for _, _, graph in evaluation_architectures(each, TASK, "val", 5)] for each in (plain, other)]
    for one, same in zip(*chosen, strict=True):
        assert one.name == same.name
        np.testing.assert_array_equal(one.edges, same.edges)
    with pytest.raises(ValueError, match="costly_above = 1 has no effect for the demo and for files"):
        ArchitectureConfig(split="demo", costly_above=1)


def test_networks_are_drawn_with_the_widths_asked_for() -> None:
    config = ArchitectureConfig(sampler_workers=0, widths=(16, 24, 40, 80))
    stream = training_stream(config, Task(10, 16), seed=0, position=2_000)
    drawn = [args for _ in range(6) for args in next(stream).args]
    assert {args.C for args in drawn} == {16, 24, 40, 80}
    assert all(args.C == 16 for args in drawn if args.n_cells > 12)
    for widths, words in (((), "multiples of 8"), ((16, 20), "multiples of 8"), ((32, 16), "must rise")):
        with pytest.raises(ValueError, match=words):
            ArchitectureConfig(widths=widths)


def test_mislabelled_graphs_have_the_labels_of_the_network_and_its_edges_in_another_order() -> None:
    right, wrong = (
        training_stream(ArchitectureConfig(sampler_workers=0, mislabelled=each), Task(10, 32), seed=0, position=2_000)
        for each in (False, True)
    )
    off, agree, other_type = [], 0, []
    for one, other in zip(next(right).graphs, next(wrong).graphs, strict=True):
        assert one.params == other.params
        np.testing.assert_array_equal(one.node_types, other.node_types)
        structures = [networkx.DiGraph(graph.edges.tolist()) for graph in (one, other)]
        assert networkx.is_directed_acyclic_graph(structures[1])
        assert networkx.faster_could_be_isomorphic(*structures)
        agree += np.array_equal(one.edges, other.edges)
        off.append(np.mean(one.distances(50) != other.distances(50)))
        way = dict.fromkeys(structures[0], 0)
        for node in reversed(list(networkx.topological_sort(structures[0]))):
            way[node] = max((way[behind] + 1 for behind in structures[0][node]), default=0)
        order = sorted(way, key=lambda node: (-way[node], node))
        place = {node: row for row, node in enumerate(order)}
        assert sorted((place[a], place[b]) for a, b in structures[0].edges) == sorted(structures[1].edges)
        other_type.append(np.mean(one.node_types[order] != one.node_types))
    assert agree <= 2
    assert np.mean(off) > 0.1
    assert 0.35 < np.mean(other_type) < 0.65

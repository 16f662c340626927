"""Architectures of a run: the demo's space, dataset files, positions."""

import dataclasses
import pathlib
import pickle

import numpy as np
import pytest
from parity_data import PARITY, needs_parity

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.deepnets.demo_space import DemoStream, is_test, simplified
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.sources import training_stream
from ghn_jax.evaluation.architectures import evaluation_architectures
from ghn_jax.metatraining.config import ArchitectureConfig, Task
from ghn_jax.networks import zoo

TASK = Task(10, 8)
DEMO = ArchitectureConfig(split="demo", meta_batch=2, sampler_workers=0)


def genotypes(batches) -> list[str]:
    return [str(args.replace(fc_dim=64)) for batch in batches for args in batch.args]


def test_the_demo_never_trains_on_what_it_tests() -> None:
    stream = training_stream(DEMO, TASK, seed=0, position=0)
    trained = set(genotypes(next(stream) for _ in range(100)))
    tested, validated = (
        [args for _, args, _ in evaluation_architectures(DEMO, TASK, split, count) if isinstance(args, NetworkArgs)]
        for split, count in (("test", 50), ("val", 10))
    )
    assert (len(tested), len(validated)) == (50, 10)
    assert all(is_test(args) for args in (*tested, *validated))
    assert trained.isdisjoint(str(args.replace(fc_dim=64)) for args in (*tested, *validated))
    assert len(trained) > 150
    assert len({str(args) for args in tested}) > 45


def test_whether_an_architecture_tests_does_not_depend_on_its_width() -> None:
    for index in range(40):
        args = simplified(sample_args("train", index)[0])
        if args is not None:
            assert is_test(args) == is_test(args.replace(C=64, fc_dim=128, image_size=32, num_classes=100))


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
    assert len(set(genotypes(next(stream) for _ in range(10)))) == 4


@needs_parity
def test_architectures_of_the_releases_files() -> None:
    path = PARITY / "deepnets" / "deepnets1m_train.hdf5"
    config = ArchitectureConfig(architecture_file=path, meta_batch=2, sampler_workers=0)
    stream = training_stream(config, Task(10, 32), seed=0, position=0)
    batches = [next(stream) for _ in range(31)]
    names = [graph.name for batch in batches for graph in batch.graphs]
    if all(b.start == 2 * i for i, b in enumerate(batches[:30])):
        assert len(set(names[:60])) == 60
    assert {args.C for batch in batches for args in batch.args} > {32}
    evaluated = dataclasses.replace(config, architecture_file=path.with_name("deepnets1m_eval.hdf5"))
    chosen = list(evaluation_architectures(evaluated, Task(10, 32), "deep", 500))
    assert [number for number, _, _ in chosen] == list(range(6))
    missing = dataclasses.replace(config, architecture_file=pathlib.Path("none.hdf5"))
    with pytest.raises(ValueError, match=r"none\.hdf5"):
        training_stream(missing, Task(10, 32), seed=0, position=0)


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

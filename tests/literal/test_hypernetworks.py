"""Predictions of the library equal those of the literal float64 form, with weights by a formula: no files needed."""

import numpy as np
import pytest
from literal.formula import CONFIGS, shapes, weights
from literal.ghn import LiteralGHN, canonical

from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.sampler import sample_architecture
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import GHN, predict_params
from ghn_jax.hypernet.checkpoints.release_names import config_from_release, params_from_release
from ghn_jax.networks import zoo

TOLERANCE = 5e-6
SAMPLED = [("train", 0), ("train", 1), ("val", 0), ("test", 0), ("bnfree", 0), ("predefined", 1)]
TRACED = ["resnet18", "squeezenet1_1", "mobilenet_v3_small"]


def sampled_graph(split: str, index: int, classes: int) -> ArchGraph:
    """Graph of an architecture that the sampler draws, at the width of its split."""
    args = sample_architecture(split, index).args
    assert args is not None
    return network_graph(args.replace(num_classes=classes), f"{split}/{index}")


def assert_equal_predictions(kind: str, graph: ArchGraph) -> None:
    config, state = CONFIGS[kind], weights(CONFIGS[kind])
    ours = config_from_release(config, kind)
    (params,) = predict_params(GHN(ours), params_from_release(ours, state, kind), [graph])
    expected = LiteralGHN(config, state).predict(graph)
    assert params.keys() == expected.keys()
    for spec in graph.params:
        found = canonical(params[spec.path], spec)
        assert found.shape == expected[spec.path].shape
        error = np.linalg.norm(found - expected[spec.path]) / np.linalg.norm(expected[spec.path])
        assert error < TOLERANCE, (graph.name, spec.name, error)


@pytest.mark.parametrize(("split", "index"), SAMPLED)
def test_sampled_architecture(split: str, index: int):
    assert_equal_predictions("ghn2", sampled_graph(split, index, 10))


@pytest.mark.parametrize("name", TRACED)
def test_traced_architecture(name: str):
    graph = trace(zoo.create(name, 10, small_images=True), (32, 32, 3), name=name)
    assert_equal_predictions("ghn2", graph)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "ghn2"])
def test_kind_of_hypernetwork(kind: str):
    assert_equal_predictions(kind, sampled_graph("val", 1, CONFIGS[kind]["num_classes"]))


def test_names_and_shapes_of_the_formula_are_the_releases():
    for kind, config in CONFIGS.items():
        ours = config_from_release(config, kind)
        params_from_release(ours, weights(config), kind)  # refuses what is missing, extra or of another shape
        assert all(value.dtype == np.float32 for value in weights(config).values())
        assert shapes(config).keys() == weights(config).keys()

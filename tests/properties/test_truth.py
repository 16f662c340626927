"""Ground truth of small networks: what is recorded, going on, other questions."""

import pathlib
from typing import Any

import pytest
from tiny_networks import IMAGE_SIZE, tiny_batch

from ghn_jax.images import load_images
from ghn_jax.networks.zoo.resnet import ResNet
from ghn_jax.properties import make_truth, read_truth
from ghn_jax.properties.truth import TRUTH_FILE, Truth
from ghn_jax.training import NetTrainConfig

CONFIG = NetTrainConfig(steps=6, batch_size=16, test_images=64, test_batch=32, curve=(3,), image_split="val")
BATCH = tiny_batch()


def architectures(count: int) -> list[Any]:
    return [(number, BATCH.args[number], BATCH.graphs[number]) for number in range(count)]


def test_networks_are_trained_measured_and_not_trained_again(tmp_path: pathlib.Path) -> None:
    images = load_images("digits", IMAGE_SIZE)
    (first,) = make_truth(architectures(1), images, CONFIG, tmp_path, asked={"split": "tiny"})
    found = make_truth(architectures(2), images, CONFIG, tmp_path, asked={"split": "tiny"})
    assert found[0] == first  # times included: it was not measured again
    assert found == read_truth(tmp_path / TRUTH_FILE)
    for one, graph in zip(found, BATCH.graphs, strict=True):
        assert (one.name, one.params) == (graph.name, graph.num_params)
        assert one.steps == (0, 3, 6)
        assert one.clean == one.top1[-1]
        assert 0 <= one.noisy <= 1
        assert one.seconds > 0
        assert one.products > 1_000
    with pytest.raises(ValueError, match="split was 'tiny', now 'other'"):
        make_truth(architectures(2), images, CONFIG, tmp_path, asked={"split": "other"})
    with (tmp_path / TRUTH_FILE).open("a") as file:
        file.write('{"name": "cut')
    assert read_truth(tmp_path / TRUTH_FILE) == found
    (tmp_path / TRUTH_FILE).write_text('{"name": "other"}\n')
    with pytest.raises(ValueError, match="line 1, is no trained network: it lacks"):
        read_truth(tmp_path / TRUTH_FILE)


def test_convergence_is_a_share_of_the_run() -> None:
    one = Truth("a", 0, 1, 1, 0.9, 0.5, 0.1, (0, 50, 100), (0.1, 0.5, 0.9))
    assert one.convergence(0.5) == pytest.approx(0.5)
    assert one.convergence(0.7) == pytest.approx(0.75)
    assert one.convergence(0.95) == 2.0


def test_models_without_cells_are_refused(tmp_path: pathlib.Path) -> None:
    model: Any = ResNet((1,), num_classes=10, small_images=True)
    with pytest.raises(ValueError, match="is none"):
        make_truth([(0, model, BATCH.graphs[0])], load_images("digits", IMAGE_SIZE), CONFIG, tmp_path, asked={})

"""Scenes, average precision, and a detector that learns."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from network_args import small_args
from PIL import Image

from ghn_jax.detection import (
    DetectionConfig,
    DetectorConfig,
    DetectorTask,
    Scenes,
    average_precision,
    digit_scenes,
    penn_fudan,
    train_detector,
)
from ghn_jax.detection.losses import Truth, box_loss, choose, proposal_loss
from ghn_jax.detection.model import Detections, Proposed
from ghn_jax.detection.task import flip
from ghn_jax.images.image_set import measured_style
from ghn_jax.networks import Backbone, TargetNetwork

ARGS = small_args(
    (("conv_3x3", 0), ("skip_connect", 1)), (2,), n_cells=3, C=16, C_mult=1, num_classes=10, image_size=48
)
CONFIG = DetectionConfig(DetectorConfig(sides=(12, 24), aspects=(0.7, 1.4), proposals=30, candidates=100), epochs=2)


def test_scenes_are_exact_and_repeatable() -> None:
    scenes = digit_scenes(20, 48)
    assert scenes.images.shape == (20, 48, 48, 3)
    again = digit_scenes(20, 48)
    np.testing.assert_array_equal(scenes.images, again.images)
    assert not np.array_equal(scenes.images, digit_scenes(20, 48, test=True).images)
    for image, boxes, classes in zip(scenes.images, scenes.boxes, scenes.classes, strict=True):
        assert 1 <= (classes == 0).sum() <= 4
        for left, top, right, bottom in boxes[classes == 0].astype(int):
            inside = image[top:bottom, left:right].astype(int).max(axis=2)
            assert inside.max() > 120
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.max() > 40  # every side touches the digit


def perfect(scenes: Scenes, shift: float = 0.0) -> list[Detections]:
    scores = np.where(scenes.classes >= 0, 0.9, -np.inf)
    return [Detections(jnp.asarray(scenes.boxes + shift), jnp.asarray(scenes.classes), jnp.asarray(scores))]


def test_average_precision() -> None:
    scenes = digit_scenes(10, 48)
    assert average_precision(scenes, perfect(scenes)) == (pytest.approx(1.0), pytest.approx(1.0))
    shifted = average_precision(scenes, perfect(scenes, 3.0))
    assert shifted.mean < 0.5
    nothing = perfect(scenes)[0]._replace(scores=jnp.full(scenes.classes.shape, -jnp.inf))
    assert average_precision(scenes, [nothing]) == (0.0, 0.0)


def test_the_backbone_is_the_network_without_its_classifier() -> None:
    images = jax.random.normal(jax.random.key(0), (2, 48, 48, 3))
    backbone: Any = Backbone(ARGS).init(jax.random.key(0), images)
    network: Any = TargetNetwork(ARGS).init(jax.random.key(0), images)
    own, whole = (set(traverse_util.flatten_dict(v["params"])) for v in (backbone, network))
    assert {path[0] for path in whole - own} == {"classifier_0"}
    assert own < whole
    features: Any = Backbone(ARGS).apply({"params": network["params"]}, images)
    assert features.shape == (2, 12, 12, 16)
    head = network["params"]["classifier_0"]
    logits = features.mean(axis=(1, 2)) @ head["kernel"] + head["bias"][None]
    found: Any = TargetNetwork(ARGS).apply(network, images)
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_losses_vanish_for_perfect_answers_and_ignore_padding() -> None:
    config = DetectorConfig(sides=(8,), aspects=(1.0,), looked_at=16)
    boxes = jnp.array([[[4, 4, 12, 12], [0, 0, 0, 0]]], jnp.float32)
    truth = Truth(boxes, jnp.array([[0, -1]]), jnp.array([[True, False]]))
    logits = jnp.full((1, 16), -30.0).at[0, 5].set(30.0)
    proposed = Proposed(logits, jnp.zeros((1, 16, 4)), jnp.asarray(boxes), jnp.array([[True, False]]))
    shapes = ((32, 32), (4, 4))
    assert float(proposal_loss(config, proposed, truth, jax.random.key(0), shapes)) == pytest.approx(0, abs=1e-6)
    wrong = proposed._replace(objectness=-logits)
    assert float(proposal_loss(config, wrong, truth, jax.random.key(0), shapes)) > 10
    chosen = choose(config, proposed, truth, jax.random.key(0))
    classes = np.asarray(chosen.classes)[np.asarray(chosen.weight) > 0]
    assert classes.tolist() == [1] * len(classes)
    right = 30.0 * jax.nn.one_hot(chosen.classes, 2)
    offsets = jnp.zeros((*chosen.classes.shape, 2, 4)).at[:, :, 1].set(chosen.offsets)
    assert float(box_loss(chosen, right, offsets)) == pytest.approx(0, abs=1e-5)
    assert float(box_loss(chosen, right, offsets + 1.0)) > 1


def test_flips_take_boxes_along() -> None:
    scenes = digit_scenes(8, 48)
    truth = Truth(jnp.asarray(scenes.boxes), jnp.asarray(scenes.classes), jnp.asarray(scenes.classes >= 0))
    images, flipped = flip(jax.random.key(1), jnp.asarray(scenes.images), truth)
    changed = 0
    for i in range(8):
        mirrored = np.array_equal(images[i], scenes.images[i, :, ::-1])
        changed += mirrored
        for j in range(4):
            left, top, right, bottom = scenes.boxes[i, j]
            expected = (
                [48 - right, top, 48 - left, bottom] if mirrored and scenes.classes[i, j] == 0 else scenes.boxes[i, j]
            )
            np.testing.assert_allclose(flipped.boxes[i, j], expected)
    assert 0 < changed < 8


def detector(training: Scenes, **changes: Any) -> DetectorTask:
    config = dataclasses.replace(CONFIG, **changes)
    return DetectorTask(Backbone(ARGS, momentum=0.9), {}, training, measured_style(training.images), config)


def test_a_detector_learns_and_goes_on_where_it_stopped(tmp_path: pathlib.Path) -> None:
    training, test = digit_scenes(64, 48), digit_scenes(16, 48, test=True)
    task = detector(training, epochs=6, batch_size=4, learning_rate=0.02, decay_epochs=5, warmup_steps=10)
    curve = train_detector(task, test, tmp_path / "a")
    assert len(curve) == 6
    assert curve[-1].at_half > 0.2
    assert curve[-1].at_half > curve[0].at_half
    assert train_detector(task, test, tmp_path / "a") == curve


def test_a_folder_of_penn_fudan(tmp_path: pathlib.Path) -> None:
    for folder in ("PNGImages", "PedMasks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="PNGImages should hold more than 50 pictures, found 0"):
        penn_fudan(tmp_path, 32)
    for number in range(52):
        Image.new("RGB", (80, 40), (number, 0, 0)).save(tmp_path / "PNGImages" / f"P{number:02d}.png")
        mask = np.zeros((40, 80), np.uint8)
        mask[10:30, 20:40], mask[5:9, 60:80] = 1, 2
        Image.fromarray(mask).save(tmp_path / "PedMasks" / f"P{number:02d}_mask.png")
    training, test = penn_fudan(tmp_path, 40)
    assert (len(training), len(test)) == (2, 50)
    np.testing.assert_allclose(training.boxes[0], [[10, 5, 20, 15], [30, 2.5, 40, 4.5]])
    assert (training.images[:, 20:] == 0).all()
    (tmp_path / "PedMasks" / "P07_mask.png").unlink()
    with pytest.raises(ValueError, match=r"P07\.png has no mask"):
        penn_fudan(tmp_path, 40)

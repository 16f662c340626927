"""Batches: order, augmentation, normalisation, noise, streams."""

import dataclasses
import io
import multiprocessing
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ghn_jax.images import ImageSet, ImageStream, Style, eval_batches, load_images, train_batches
from ghn_jax.images.augment import crop_and_flip, normalise, random_crop, random_flip
from ghn_jax.images.colour import colour_jitter, shift_hue
from ghn_jax.images.stream import random_resized_crop

PLAIN = Style(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    images = load_images("digits", 8)
    assert isinstance(images, ImageSet)
    return images


def test_an_epoch_takes_every_image_at_most_once_and_epochs_differ(digits: ImageSet) -> None:
    still = dataclasses.replace(digits, style=dataclasses.replace(digits.style, crop_padding=0))
    batches = train_batches(still, 64, seed=1)
    assert batches.steps_per_epoch == 1294 // 64
    epoch = np.concatenate([batches.batch(step)[0].reshape(64, -1) for step in range(batches.steps_per_epoch)])
    assert len(np.unique(epoch, axis=0)) == 64 * batches.steps_per_epoch
    first, again = batches.batch(0), batches.batch(batches.steps_per_epoch)
    assert not np.array_equal(first[1], again[1])


def test_a_batch_depends_on_seed_and_step_alone(digits: ImageSet) -> None:
    one, other = train_batches(digits, 16, seed=1), train_batches(digits, 16, seed=1)
    for _ in range(3):
        one.batch(0)
    np.testing.assert_array_equal(one.batch(7)[0], other.batch(7)[0])
    assert not np.array_equal(train_batches(digits, 16, seed=2).batch(7)[1], one.batch(7)[1])


def test_only_batches_are_held_on_the_device(digits: ImageSet) -> None:
    others = jax.live_arrays()  # of tests before
    batches = train_batches(digits, 16, seed=1)
    batches.batch(0)
    held = sum(array.nbytes for array in jax.live_arrays())
    batch = batches.batch(1)
    assert sum(array.nbytes for array in jax.live_arrays()) - held <= sum(array.nbytes for array in batch)
    ours = [array for array in jax.live_arrays() if not any(array is other for other in others)]
    assert sum(array.nbytes for array in ours) < digits.train.images.nbytes


def test_batches_larger_than_the_set_are_rejected(digits: ImageSet) -> None:
    with pytest.raises(ValueError, match="between 1 and the 1294"):
        train_batches(digits, 2000, seed=0)


def test_crops_are_windows_of_the_padded_image_and_all_occur() -> None:
    image = jnp.arange(1, 5 * 5 * 3 + 1, dtype=jnp.uint8).reshape(1, 5, 5, 3)
    crops = np.asarray(random_crop(jax.random.key(0), jnp.repeat(image, 200, axis=0), 1))
    padded = np.pad(np.asarray(image[0]), ((1, 1), (1, 1), (0, 0)))
    windows = {padded[i : i + 5, j : j + 5].tobytes() for i in range(3) for j in range(3)}
    assert {crop.tobytes() for crop in crops} == windows


def test_flips_mirror_about_half_of_the_images_and_only_where_allowed() -> None:
    image = jnp.arange(12, dtype=jnp.uint8).reshape(1, 2, 2, 3)
    many = jnp.repeat(image, 200, axis=0)
    flipped = random_flip(jax.random.key(0), many)
    mirrored = (flipped == image[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == image).all(axis=(1, 2, 3))
    assert bool((mirrored ^ kept).all())
    assert 70 < int(mirrored.sum()) < 130
    still = dataclasses.replace(PLAIN, flip=False, crop_padding=0)
    np.testing.assert_array_equal(crop_and_flip(jax.random.key(0), many, still), many)


def test_normalisation() -> None:
    images = jnp.full((1, 1, 1, 3), 255, jnp.uint8)
    np.testing.assert_allclose(normalise(images, PLAIN).reshape(3), (2, 3, 7), rtol=1e-6)


def test_evaluation_batches_cover_the_split_once_in_mixed_order(digits: ImageSet) -> None:
    labels = np.concatenate([y for _, y in eval_batches(digits, "test", 60)])
    assert np.bincount(labels).tolist() == np.bincount(digits.test.labels).tolist()
    assert sum(len(y) for _, y in eval_batches(digits, "test", 50)) == 350
    assert sum(len(y) for _, y in eval_batches(digits, "test", 64, limit=20)) == 20


def test_the_noise_test_adds_the_noise_of_the_set_before_normalising(digits: ImageSet) -> None:
    (plain, _), (noisy, _), (again, _) = (next(eval_batches(digits, "test", 300, noise_seed=s)) for s in (None, 0, 0))
    np.testing.assert_array_equal(noisy, again)
    inner = np.abs(np.asarray(plain) * digits.style.std[0] + digits.style.mean[0] - 0.5) < 0.2
    noise = (np.asarray(noisy) - np.asarray(plain))[inner] * digits.style.std[0]
    assert abs(noise.std() - 0.08) < 0.005
    unit = np.asarray(noisy) * digits.style.std[0] + digits.style.mean[0]
    assert unit.min() > -1e-5
    assert unit.max() < 1 + 1e-5


def test_colour_jitter_keeps_range_and_changes_each_image_differently() -> None:
    images = jnp.tile(jax.random.randint(jax.random.key(1), (1, 6, 6, 3), 0, 256).astype(jnp.uint8), (8, 1, 1, 1))
    jittered = np.asarray(jax.jit(colour_jitter)(jax.random.key(0), images))
    assert jittered.min() >= 0
    assert jittered.max() <= 1
    assert len(np.unique(jittered.reshape(8, -1), axis=0)) == 8


def test_hue_turns_red_into_green_into_blue_and_nothing_at_zero() -> None:
    red = jnp.array([1.0, 0.2, 0.2]).reshape(1, 1, 1, 3)
    third = jnp.full((1, 1, 1, 1), 1 / 3)
    np.testing.assert_allclose(shift_hue(red, third).reshape(3), (0.2, 1, 0.2), atol=1e-5)
    np.testing.assert_allclose(shift_hue(red, 2 * third).reshape(3), (0.2, 0.2, 1), atol=1e-5)
    pixels = jax.random.uniform(jax.random.key(0), (2, 5, 5, 3))
    np.testing.assert_allclose(shift_hue(pixels, jnp.zeros((2, 1, 1, 1))), pixels, atol=1e-5)


class PlainRecords:
    """Pictures of one grey level each: 8 x the row, label row % 3."""

    def __init__(self, count: int) -> None:
        self.labels = (np.arange(count) % 3).astype(np.int32)
        self.skipped = 0

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        files = []
        for row in rows:
            buffer = io.BytesIO()
            Image.new("RGB", (20, 14), (8 * row,) * 3).save(buffer, "PNG")
            files.append(buffer.getvalue())
        return files

    def name(self, row: int) -> str:
        return f"grey {row}"

    def check(self, image: Image.Image) -> None:
        assert image.size == (20, 14)

    def take(self, rows: np.ndarray) -> "PlainRecords":
        raise NotImplementedError


def small_stream(workers: int) -> ImageStream:
    records = PlainRecords(30)
    return ImageStream("grey", records, records, np.arange(24), np.arange(24, 30), 3, 8, PLAIN, workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_can_be_entered_at_any_step(workers: int) -> None:
    whole = train_batches(small_stream(0), 4, seed=5)
    expected = [whole.batch(step) for step in range(9)]
    entered = train_batches(small_stream(workers), 4, seed=5)
    for step in (7, 8):
        np.testing.assert_array_equal(entered.batch(step)[0], expected[step][0])
        np.testing.assert_array_equal(entered.batch(step)[1], expected[step][1])
    assert len({tuple(np.asarray(labels).tolist()) for _, labels in expected}) > 5


def test_a_killed_decoding_process_is_told_and_another_one_goes_on() -> None:
    """Batches that were decoded before may still come; the first one that is missing says why."""
    others = multiprocessing.active_children()
    batches, expected = train_batches(small_stream(1), 4, seed=5), train_batches(small_stream(0), 4, seed=5)
    batches.batch(0)
    killed = [process for process in multiprocessing.active_children() if process not in others]
    assert killed
    for process in killed:
        process.kill()
    came: list[np.ndarray] = []

    def go_on() -> None:
        came.extend(np.asarray(batches.batch(step)[0]) for step in range(1, 100))

    with pytest.raises(BrokenProcessPool, match="a process that decodes images was killed"):
        go_on()
    came.append(np.asarray(batches.batch(len(came) + 1)[0]))
    for step, images in enumerate(came, 1):
        np.testing.assert_array_equal(images, expected.batch(step)[0])


def test_closed_batches_leave_no_process_and_can_be_asked_again() -> None:
    others = multiprocessing.active_children()
    batches = train_batches(small_stream(1), 4, seed=5)
    first = np.asarray(batches.batch(0)[0])
    started = [process for process in multiprocessing.active_children() if process not in others]
    assert started
    batches.close()
    for process in started:
        process.join(60)
        assert not process.is_alive()
    np.testing.assert_array_equal(batches.batch(0)[0], first)
    batches.close()


def test_stream_epochs_visit_every_training_row_and_evaluation_every_test_row() -> None:
    stream = small_stream(0)
    batches = stream.train_batches(4, seed=0)
    levels = np.concatenate([next(batches)[0][:, 0, 0, 0] for _ in range(6)])
    assert sorted(levels) == [8 * row for row in range(24)]
    tested = np.concatenate([images[:, 4, 4, 0] for images, _ in stream.eval_batches("test", 10)])
    assert sorted(tested) == [8 * row for row in range(30)]
    assert sum(len(labels) for _, labels in eval_batches(stream, "val", 3, limit=3)) == 3
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        stream.eval_batches("dev", 3)


def test_random_resized_crops_have_the_size_asked_for_even_of_extreme_pictures() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((40, 30), (400, 3), (5, 5)):
        assert random_resized_crop(Image.new("RGB", (width, height)), 12, rng).shape == (12, 12, 3)

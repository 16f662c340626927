"""Sets by name: digits, folders, tensorflow-datasets; splits; the cache."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ghn_jax.images import ImageSet, ImageSplit, ImageStream, eval_batches, few_shot, load_images, train_batches
from ghn_jax.images import load as load_module
from ghn_jax.images.cache import cached_split
from ghn_jax.images.image_set import measured_style
from ghn_jax.images.records import BadImages, Records, decode_all
from ghn_jax.images.splits import last_of_each_class, last_tenth


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def picture_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two classes (dark, light), 10 training and 4 validation pictures each, of several sizes and modes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (20 + i, 30, 3)) + 150 * label
                mode = "RGB" if i % 2 else "L"
                Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(folder / f"{i}.png")
    return tmp_path / "set"


def in_memory(folder: pathlib.Path) -> ImageSet:
    """A folder's pictures at 8 x 8."""
    images = load_images(f"folder:{folder}", 8)
    assert isinstance(images, ImageSet)
    return images


def test_digits_are_split_without_overlap_and_upscaled() -> None:
    digits = load_images("digits", 16)
    assert isinstance(digits, ImageSet)
    assert digits.train.images.shape == (1294, 16, 16, 3)
    assert (len(digits.val), len(digits.test), digits.num_classes) == (143, 360, 10)
    assert not digits.style.flip
    everything = np.concatenate([digits.split(s).images.reshape(-1, 768) for s in ("train", "val", "test")])
    assert len(np.unique(everything, axis=0)) == 1797
    assert set(digits.val.labels) == set(digits.test.labels) == set(range(10))


def test_a_folder_is_decoded_squared_and_split_by_class(picture_folder: pathlib.Path) -> None:
    images = load_images(f"folder:{picture_folder}", 12)
    assert isinstance(images, ImageSet)
    assert (len(images.train), len(images.val), len(images.test)) == (18, 2, 8)
    assert images.image_size == 12
    assert sorted(images.val.labels) == [0, 1]
    for split in (images.train, images.test):
        means = split.images.mean(axis=(1, 2, 3))
        np.testing.assert_array_equal(means > 128, split.labels == 1)


def test_a_decoded_folder_comes_from_the_cache_until_a_file_changes(
    picture_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_memory(picture_folder)
    decoded: list[int] = []

    def spy(records: Records, image_size: int, bad_images: BadImages) -> ImageSplit:
        decoded.append(len(records))
        return decode_all(records, image_size, bad_images)

    monkeypatch.setattr(load_module, "decode_all", spy)
    again = in_memory(picture_folder)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert decoded == []
    Image.new("RGB", (9, 9)).save(picture_folder / "val" / "dark" / "0.png")
    in_memory(picture_folder)
    assert decoded == [20, 8]


@pytest.mark.parametrize(
    ("bad", "message"), [("empty", "is empty"), ("pipe", "is no regular file"), ("link", "cannot be read")]
)
def test_a_picture_that_would_hang_or_is_empty_is_named(picture_folder: pathlib.Path, bad: str, message: str) -> None:
    file = picture_folder / "train" / "light" / "bad.png"
    if bad == "empty":
        file.touch()
    elif bad == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(picture_folder / "nothing.png")
    with pytest.raises(ValueError, match=rf"light.bad\.png {message}"):
        load_images(f"folder:{picture_folder}", 8)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_cache_entry_is_made_anew(picture_folder: pathlib.Path, tmp_path: pathlib.Path, damage: str) -> None:
    first = in_memory(picture_folder)
    entries = sorted((tmp_path / "cache" / "images").iterdir())
    assert len(entries) == 2  # training and test images
    whole = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, whole, strict=True):
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        entry.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped}[damage])
    again = in_memory(picture_folder)
    for split in ("train", "val", "test"):
        for field in ("images", "labels"):
            one, other = (getattr(images.split(split), field) for images in (first, again))
            np.testing.assert_array_equal(one, other)
    assert [entry.read_bytes() for entry in entries] == whole


def test_a_folder_too_large_for_memory_is_streamed(
    picture_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", 1000)
    images = load_images(f"folder:{picture_folder}", 12, workers=0)
    assert isinstance(images, ImageStream)
    assert (len(images.train_rows), len(images.val_rows), images.num_classes) == (18, 2, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("rm val", "folder:PATH needs"),
        ("empty", "holds no pictures"),
        ("extra", "'grey', which the training folder has not"),
        ("one", "at least 2 classes"),
    ],
)
def test_a_wrong_folder_is_explained(picture_folder: pathlib.Path, spoil: str, message: str) -> None:
    if spoil == "rm val":
        (picture_folder / "val").rename(picture_folder / "valid")
    elif spoil == "empty":
        for file in (picture_folder / "train" / "dark").iterdir():
            file.unlink()
    elif spoil == "extra":
        (picture_folder / "val" / "grey").mkdir()
    else:
        (picture_folder / "train" / "dark").rename(picture_folder / "dark")
    with pytest.raises(ValueError, match=message):
        load_images(f"folder:{picture_folder}", 8)


@pytest.mark.parametrize("in_memory_bytes", [2_000_000_000, 1000])
def test_a_folder_without_training_pictures_can_be_evaluated_on_only(
    picture_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, in_memory_bytes: int
) -> None:
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", in_memory_bytes)
    whole = load_images(f"folder:{picture_folder}", 12, workers=0)
    shutil.rmtree(picture_folder / "train")
    images = load_images(f"folder:{picture_folder}", 12, workers=0)
    assert isinstance(images, ImageSet) == (in_memory_bytes > 1000)
    assert (images.num_classes, images.image_size) == (2, 12)
    assert images.style.mean == (0.485, 0.456, 0.406)
    ours, theirs = (list(eval_batches(each, "test", 4)) for each in (images, whole))
    assert [pixels.shape for pixels, _ in ours] == [(4, 12, 12, 3)] * 2
    np.testing.assert_array_equal([labels for _, labels in ours], [labels for _, labels in theirs])
    with pytest.raises(ValueError, match="has no training images: it can only be evaluated on"):
        train_batches(images, 2, 0)
    assert list(eval_batches(images, "val", 4)) == []


@pytest.mark.parametrize("name", ["cifar10", "there_is_no_such_set"])
def test_a_missing_set_says_how_to_get_it(name: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=f"tfds build {name} --file_format=array_record") as caught:
        load_images(name, data_dir=str(tmp_path))
    assert "digits" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_impossible_sizes_and_splits_are_rejected() -> None:
    with pytest.raises(ValueError, match="image_size"):
        load_images("digits", 0)
    digits = load_images("digits", 8)
    assert isinstance(digits, ImageSet)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        digits.split("dev")
    with pytest.raises(ValueError, match="must be uint8"):
        ImageSplit(np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="as many labels"):
        ImageSplit(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int32))


def test_validation_rows() -> None:
    train, val = last_tenth(np.zeros(50_000))
    assert (train[-1], val[0], val[-1]) == (44_999, 45_000, 49_999)
    labels = np.array([0, 1, 0, 1, 0, 1])
    train, val = last_of_each_class(labels, 1)
    assert (train.tolist(), val.tolist()) == ([0, 1, 2, 3], [4, 5])
    with pytest.raises(ValueError, match="leave none to train on"):
        last_of_each_class(labels, 3)


def test_few_shot_subsets_are_balanced_and_repeatable() -> None:
    digits = load_images("digits", 8)
    assert isinstance(digits, ImageSet)
    subset = few_shot(digits.train, 10, seed=3)
    assert np.bincount(subset.labels).tolist() == [10] * 10
    np.testing.assert_array_equal(subset.images, few_shot(digits.train, 10, seed=3).images)
    assert not np.array_equal(subset.images, few_shot(digits.train, 10, seed=4).images)
    with pytest.raises(ValueError, match="cannot take 1000"):
        few_shot(digits.train, 1000)


def test_few_shot_subsets_may_be_the_first_of_each_class() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 1], np.int32)
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1).repeat(3, axis=3)
    subset = few_shot(ImageSplit(images, labels), 2, choice="first")
    assert subset.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4]
    assert subset.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="'random' or 'first', got 'last'"):
        few_shot(subset, 1, choice="last")  # pyright: ignore[reportArgumentType]


def test_measured_statistics_are_those_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    style = measured_style(images, flip=False)
    np.testing.assert_allclose(style.mean, (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(style.std, (images / 255).std((0, 1, 2)), rtol=1e-6)


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "file"))
    split = ImageSplit(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32))
    assert cached_split("key", lambda: split).images.shape == (2, 4, 4, 3)

"""Sets of tensorflow-datasets: right, or refused with the file or the record."""

import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from prepared_sets import greys, write_set
from sklearn.datasets import load_digits

from ghn_jax.images import ImageSet, ImageStream, eval_batches, load_images, train_batches
from ghn_jax.images import load as load_module
from ghn_jax.images.prepared_files import MAX_METADATA_BYTES


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))


def write_greys(folder: pathlib.Path, name: str = "greys", test: str = "test", **options: Any) -> pathlib.Path:
    return write_set(folder, name, {"train": greys(20), test: greys(6)}, 3, **options)


@pytest.mark.parametrize("test", ["test", "validation"])
def test_a_prepared_set_is_read_without_tensorflow(tmp_path: pathlib.Path, test: str) -> None:
    write_greys(tmp_path, test=test)
    images = load_images("greys", data_dir=str(tmp_path))
    assert isinstance(images, ImageSet)
    assert (images.image_size, images.num_classes) == (8, 3)
    for split, rows in ((images.train, range(18)), (images.val, range(18, 20)), (images.test, range(6))):
        np.testing.assert_array_equal(split.images[:, 3, 3, 1], [10 * row for row in rows])
        np.testing.assert_array_equal(split.labels, [row % 3 for row in rows])
    assert "tensorflow" not in sys.modules


def test_another_size_can_be_asked_for(tmp_path: pathlib.Path) -> None:
    write_greys(tmp_path)
    assert load_images("greys", 16, data_dir=str(tmp_path)).image_size == 16
    assert load_images("greys", data_dir=str(tmp_path)).image_size == 8


def digits_of_28() -> tuple[np.ndarray, np.ndarray]:
    """The first 200 digits as one-channel images (200, 28, 28, 1)."""
    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels)[:200].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    larger = np.stack([np.asarray(Image.fromarray(i).resize((28, 28))) for i in grey])
    return larger[..., None], np.asarray(labels)[:200]


@pytest.mark.parametrize(("name", "flip"), [("mnist", False), ("fashion_mnist", True)])
def test_one_channel_becomes_three_equal_ones(tmp_path: pathlib.Path, name: str, flip: bool) -> None:
    images, labels = digits_of_28()
    write_set(tmp_path, name, {"train": (images[:150], labels[:150]), "test": (images[150:], labels[150:])}, 10)
    (version,) = (tmp_path / name).iterdir()
    version.rename(version.with_name("3.0.1"))  # that of the code of tensorflow-datasets
    info = version.with_name("3.0.1") / "dataset_info.json"
    info.write_text(info.read_text().replace("1.0.0", "3.0.1"))
    found = load_images(name, data_dir=str(tmp_path))
    assert isinstance(found, ImageSet)
    assert (found.image_size, found.num_classes, found.style.flip) == (28, 10, flip)
    assert len(set(found.style.mean)) == len(set(found.style.std)) == 1
    three = np.repeat(images, 3, axis=3)
    for split, rows in ((found.train, range(135)), (found.val, range(135, 150)), (found.test, range(150, 200))):
        np.testing.assert_array_equal(split.images, three[rows])
        np.testing.assert_array_equal(split.labels, labels[rows])
    batch, _ = train_batches(found, 16, seed=0).batch(0)
    tested, _ = next(eval_batches(found, "test", 50))
    for pixels in (batch, tested):
        assert pixels.shape[1:] == (28, 28, 3)
        np.testing.assert_allclose(pixels[..., 0], pixels[..., 2], atol=1e-6)
    assert abs(float(np.asarray(tested).std()) - 1) < 0.1


def test_sets_of_something_else_are_refused(tmp_path: pathlib.Path) -> None:
    write_greys(tmp_path, "pictures", image_key="picture")
    with pytest.raises(ValueError, match=r"no image classification set: .*'picture'"):
        load_images("pictures", data_dir=str(tmp_path))
    write_greys(tmp_path, "untested", test="extra")
    with pytest.raises(ValueError, match=r"needs a train and a test or validation split; it has \['extra', 'train'\]"):
        load_images("untested", data_dir=str(tmp_path))


def edited(file: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def features(set_folder: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edited(set_folder / "features.json", lambda content: change(content["featuresDict"]["features"]))


def info(set_folder: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edited(set_folder / "dataset_info.json", change)


def sparse(file: pathlib.Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(MAX_METADATA_BYTES + 1)


def fifo(file: pathlib.Path) -> None:
    file.unlink()
    os.mkfifo(file)


def one_record(file: pathlib.Path) -> None:
    writer = ArrayRecordWriter(str(file), "group_size:1")
    writer.write(b"no example")
    writer.close()


TRAIN = "greys-train.array_record-00000-of-00001"
SPOILT: dict[str, tuple[Callable[[pathlib.Path], Any], str]] = {
    "features cut": (lambda s: (s / "features.json").write_text("{"), r"features\.json is no JSON file"),
    "features deep": (lambda s: (s / "features.json").write_text("[" * 10**6), r"features\.json is no JSON file"),
    "features nested": (lambda s: (s / "features.json").write_text('{"a":' * 99 + "1" + "}" * 99), "nested more than"),
    "features a list": (lambda s: (s / "features.json").write_text("[]"), r"features\.json holds no JSON object"),
    "features a pipe": (lambda s: fifo(s / "features.json"), r"features\.json is no regular file"),
    "features large": (lambda s: sparse(s / "features.json"), r"features\.json has 16,777,217 bytes"),
    "foreign class": (
        lambda s: features(s, lambda f: f["image"].update(pythonClassName="this.Zen")),
        r"features\.json: it names the class 'this\.Zen'",
    ),
    "no label": (lambda s: features(s, lambda f: f.pop("label")), r"greys is no image classification set"),
    "label an image": (lambda s: features(s, lambda f: f.update(label=f["image"])), "greys is no image classification"),
    "other classes": (
        lambda s: features(s, lambda f: f["label"].update(classLabel={"numClasses": "7"})),
        r"features\.json: it declares 7 classes, and .*label\.labels\.txt names 3",
    ),
    "many classes": (
        lambda s: (
            (s / "label.labels.txt").unlink(),
            features(s, lambda f: f["label"].update(classLabel={"numClasses": "1000000000"})),
        ),
        "greys has 1000000000 classes: between 2 and 100,000",
    ),
    "too few classes": (
        lambda s: (
            (s / "label.labels.txt").write_text("0\n1\n"),
            features(s, lambda f: f["label"].update(classLabel={"numClasses": "2"})),
        ),
        "record 2 of greys/1.0.0 in .*greys.1.0.0 train: its label 2 is none of 2 classes",
    ),
    "other size": (
        lambda s: features(s, lambda f: f["image"]["image"].update(shape={"dimensions": ["8", "9", "3"]})),
        "20 of 20 .*record 0 of greys/1.0.0 in .* train: it has 8 x 8 pixels, and the set declares 8 x 9",
    ),
    "info cut": (lambda s: (s / "dataset_info.json").write_text('{"name"'), r"dataset_info\.json is no JSON file"),
    "info of another kind": (lambda s: info(s, lambda i: i.update(splits=3)), "metadata in .*greys cannot be read"),
    "other place": (
        lambda s: info(s, lambda i: i["splits"][0].update(filepathTemplate="../../etc/passwd")),
        r"dataset_info\.json: records are to be read from '\.\./\.\./etc/passwd', outside",
    ),
    "endless": (
        lambda s: info(s, lambda i: i["splits"][0].update(shardLengths=["10000000000000"])),
        rf"{TRAIN} holds 20 records, and the metadata beside it says 10000000000000",
    ),
    "no template": (
        lambda s: info(s, lambda i: i["splits"][0].update(filepathTemplate="{DATASTA}-{SPLIT}")),
        "metadata in .*greys cannot be read",
    ),
    "negative": (
        lambda s: info(s, lambda i: i["splits"][0].update(shardLengths=["-3"])),
        r"dataset_info\.json: the split 'train' has impossible numbers of records",
    ),
    "records cut": (lambda s: os.truncate(s / TRAIN, 70_000), rf"{TRAIN} cannot be read \(RuntimeError"),
    "records a pipe": (lambda s: fifo(s / TRAIN), rf"{TRAIN} is no regular file"),
    "records lost": (lambda s: (s / TRAIN).unlink(), rf"{TRAIN} cannot be read \(No such file"),
    "no example": (
        lambda s: (one_record(s / TRAIN), info(s, lambda i: i["splits"][0].update(shardLengths=["1"]))),
        "record 0 of greys/1.0.0 in .* train cannot be read",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_set_is_refused_with_the_place(tmp_path: pathlib.Path, name: str) -> None:
    spoil, message = SPOILT[name]
    spoil(write_greys(tmp_path))
    with pytest.raises(ValueError, match=message):
        load_images("greys", data_dir=str(tmp_path))
    assert "this" not in sys.modules


def test_a_damaged_record_is_named(tmp_path: pathlib.Path) -> None:
    target = write_greys(tmp_path)
    records = bytearray((target / TRAIN).read_bytes())
    places = [i for i in range(len(records)) if records.startswith(b"IDAT", i)]
    records[places[4]] ^= 1
    (target / TRAIN).write_bytes(records)
    with pytest.raises(ValueError, match=r"record 4 of greys/1\.0\.0 in .* train cannot be read"):
        load_images("greys", data_dir=str(tmp_path))


def test_a_colour_in_a_set_of_one_channel_is_named(tmp_path: pathlib.Path) -> None:
    images, labels = greys(20)
    coloured = images.copy()
    coloured[7, 2, 3, 1] += 1
    splits = {"train": (coloured, labels), "test": greys(6)}
    write_set(tmp_path, "greys", splits, 3, shape=(8, 8, 1))
    with pytest.raises(ValueError, match=r"1 of 20 .*record 7 of .* it has colours, and the set declares one channel"):
        load_images("greys", data_dir=str(tmp_path))


def test_bad_pictures_of_a_set_can_be_skipped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = greys(20)
    coloured = images.copy()
    coloured[7, 2, 3, 1] += 1
    write_set(tmp_path, "greys", {"train": (coloured, labels), "test": greys(6)}, 3, shape=(8, 8, 1))
    found = load_images("greys", data_dir=str(tmp_path), bad_images="skip")
    assert isinstance(found, ImageSet)
    assert found.skipped == 1
    np.testing.assert_array_equal(found.train.images[:, 0, 0, 0], [10 * row for row in range(19) if row != 7])
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", 1)
    stream = load_images("greys", data_dir=str(tmp_path), bad_images="skip", workers=0)
    assert isinstance(stream, ImageStream)
    assert (stream.skipped, stream.train.name(7)[:10]) == (1, "record 8 o")
    np.testing.assert_array_equal(stream.train.labels, np.delete(labels, 7))
    levels = [int(pixels[0, 4, 4, 0]) for pixels, _ in stream.eval_batches("val", 1)]
    assert levels == [190]


def test_sizes_that_a_set_leaves_open_may_vary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_greys(tmp_path, shape=(None, None, 3))
    images = load_images("greys", data_dir=str(tmp_path))
    assert images.image_size == 32
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", 1)
    stream = load_images("greys", 8, data_dir=str(tmp_path), workers=0)
    assert isinstance(stream, ImageStream)
    levels = [int(pixels[0, 4, 4, 0]) for pixels, _ in stream.eval_batches("test", 1)]
    assert sorted(levels) == [10 * row for row in range(6)]

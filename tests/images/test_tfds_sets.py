"""A set of tensorflow-datasets, prepared by hand in the array_record format."""

import io
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from ghn_jax.images import ImageSet, load_images

COUNTS = {"train": 20, "test": 6}
VERSION = "1.0.0"


def write_set(folder: pathlib.Path, name: str, image_key: str = "image", test: str = "test") -> None:
    """Pictures of one grey level, 10 x the row; label row % 3."""
    target = folder / name / VERSION
    target.mkdir(parents=True)
    features: Any = tfds.features.FeaturesDict(
        {image_key: tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    )
    features.save_metadata(str(target))
    (target / "features.json").write_text(json.dumps(features_json(image_key)))
    serializer = ExampleSerializer(features.get_serialized_info())
    splits = []
    for split, count in (("train", COUNTS["train"]), (test, COUNTS["test"])):
        path = target / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for row in range(count):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (10 * row,) * 3).save(picture, "PNG")
            writer.write(serializer.serialize_example({image_key: picture.getvalue(), "label": row % 3}))
        writer.close()
        splits.append(
            {
                "name": split,
                "shardLengths": [str(count)],
                "numBytes": str(path.stat().st_size),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": name, "version": VERSION, "fileFormat": "array_record", "splits": splits}
    (target / "dataset_info.json").write_text(json.dumps(info))


def features_json(image_key: str) -> dict:
    core = "tensorflow_datasets.core.features"
    dimensions = {"dimensions": ["8", "8", "3"]}
    return {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                image_key: {
                    "pythonClassName": f"{core}.image_feature.Image",
                    "image": {"shape": dimensions, "dtype": "uint8"},
                },
                "label": {
                    "pythonClassName": f"{core}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "3"},
                },
            }
        },
    }


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("test", ["test", "validation"])
def test_a_prepared_set_is_read_without_tensorflow(tmp_path: pathlib.Path, test: str) -> None:
    write_set(tmp_path, "greys", test=test)
    images = load_images("greys", data_dir=str(tmp_path))
    assert isinstance(images, ImageSet)
    assert (images.image_size, images.num_classes) == (8, 3)
    for split, rows in ((images.train, range(18)), (images.val, range(18, 20)), (images.test, range(6))):
        np.testing.assert_array_equal(split.images[:, 3, 3, 1], [10 * row for row in rows])
        np.testing.assert_array_equal(split.labels, [row % 3 for row in rows])
    assert "tensorflow" not in sys.modules


def test_another_size_can_be_asked_for(tmp_path: pathlib.Path) -> None:
    write_set(tmp_path, "greys")
    assert load_images("greys", 16, data_dir=str(tmp_path)).image_size == 16
    assert load_images("greys", data_dir=str(tmp_path)).image_size == 8


def test_sets_of_something_else_are_refused(tmp_path: pathlib.Path) -> None:
    write_set(tmp_path, "pictures", image_key="picture")
    with pytest.raises(ValueError, match=r"no image classification set: .*'picture'"):
        load_images("pictures", data_dir=str(tmp_path))
    write_set(tmp_path, "untested", test="extra")
    with pytest.raises(ValueError, match=r"needs a train and a test or validation split; it has \['extra', 'train'\]"):
        load_images("untested", data_dir=str(tmp_path))

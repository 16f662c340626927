"""Sets of tensorflow-datasets, prepared by hand in the array_record format: its layout without TensorFlow."""

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

_CORE = "tensorflow_datasets.core.features"

Split = tuple[np.ndarray, np.ndarray]
"""Images uint8 (B, H, W, C), C 1 or 3, and labels (B,)."""


def write_set(
    folder: pathlib.Path,
    name: str,
    splits: Mapping[str, Split],
    num_classes: int,
    *,
    image_key: str = "image",
    shape: Sequence[int | None] | None = None,
    version: str = "1.0.0",
) -> pathlib.Path:
    """Writes a set as PNG; returns the folder of its version.

    Args:
      folder: data_dir.
      name: of the set.
      splits: images and labels.
      num_classes: that it declares; labels may be wrong.
      image_key: name of the feature.
      shape: that it declares; default: that of the images.
      version: of the set.
    """
    target = folder / name / version
    target.mkdir(parents=True)
    declared = tuple(shape or next(iter(splits.values()))[0].shape[1:])
    features: Any = tfds.features.FeaturesDict(
        {
            image_key: tfds.features.Image(shape=(None, None, declared[2])),
            "label": tfds.features.Scalar(dtype=np.int64),
        }
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    described = [
        {"name": split}
        | _write_split(target / f"{name}-{split}.array_record-00000-of-00001", rows, serializer, image_key)
        for split, rows in splits.items()
    ]
    info = {"name": name, "version": version, "fileFormat": "array_record", "splits": described}
    (target / "dataset_info.json").write_text(json.dumps(info))
    (target / "features.json").write_text(json.dumps(_features(image_key, declared, num_classes)))
    (target / "label.labels.txt").write_text("".join(f"{label}\n" for label in range(num_classes)))
    return target


def _write_split(path: pathlib.Path, rows: Split, serializer: ExampleSerializer, image_key: str) -> dict[str, Any]:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for image, label in zip(*rows, strict=True):
        picture = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(picture, "PNG")
        writer.write(serializer.serialize_example({image_key: picture.getvalue(), "label": int(label)}))
    writer.close()
    return {
        "shardLengths": [str(len(rows[1]))],
        "numBytes": str(path.stat().st_size),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }


def _features(image_key: str, shape: Sequence[int | None], num_classes: int) -> dict[str, Any]:
    dimensions = {"dimensions": [str(-1 if size is None else size) for size in shape]}
    return {
        "pythonClassName": f"{_CORE}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                image_key: {
                    "pythonClassName": f"{_CORE}.image_feature.Image",
                    "image": {"shape": dimensions, "dtype": "uint8"},
                },
                "label": {
                    "pythonClassName": f"{_CORE}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": str(num_classes)},
                },
            }
        },
    }


def greys(count: int, size: int = 8) -> Split:
    """Images (count, size, size, 3) of one grey level, 10 x the row; label row % 3."""
    levels = (10 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, size, size, 3)), np.arange(count) % 3

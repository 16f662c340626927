"""Image classification sets of tensorflow-datasets, read through array_record: TensorFlow is not imported."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.registered import DatasetNotFoundError

from ghn_jax.images.records import TfdsRecords


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TfdsSet:
    """A prepared set.

    Attributes:
      name: full name with configuration and version, and folder: what a cached copy is known by.
      train, test: undecoded data sources; `test` is the split "test", or "validation" where no test labels are public.
      num_classes: K.
      image_size: height and width if all images share one square size, else None.
    """

    name: str
    train: Any
    test: Any
    num_classes: int
    image_size: int | None


def open_tfds(name: str, data_dir: str | None) -> TfdsSet:
    """Opens a set that has been prepared in the array_record format.

    Raises:
      ValueError: for a name that tensorflow-datasets does not know, a set that is not prepared (the message says how to
        prepare it), or one that is no image classification.
    """
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except (DatasetNotFoundError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"{_how_to_get(name, data_dir)}\n(tensorflow-datasets says: {said})") from error
    features, splits = builder.info.features, builder.info.splits
    if not splits:
        raise ValueError(_how_to_get(name, data_dir))
    if not {"image", "label"} <= set(features):
        raise ValueError(f"{name!r} is no image classification set: it has the features {sorted(features)}")
    test = next((split for split in ("test", "validation") if split in splits), None)
    if name.partition("/")[0].partition(":")[0] == "imagenet2012":
        test = "validation"  # the labels of its test split are not public
    if "train" not in splits or test not in splits:
        raise ValueError(f"{name!r} needs a train and a test or validation split; it has {sorted(splits)}")
    shape = features["image"].shape
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        sources = [builder.as_data_source(split=split, decoders=decoders) for split in ("train", test)]
    except (NotImplementedError, FileNotFoundError) as error:
        raise ValueError(f"{_how_to_get(name, data_dir)}\n(tensorflow-datasets says: {error})") from error
    return TfdsSet(
        name=f"{builder.info.full_name} in {builder.data_path}",
        train=sources[0],
        test=sources[1],
        num_classes=int(features["label"].num_classes),
        image_size=shape[0] if shape[0] and shape[0] == shape[1] else None,
    )


def tfds_records(dataset: TfdsSet) -> tuple[TfdsRecords, TfdsRecords]:
    """Records of the training and the test split."""
    return (
        TfdsRecords.open(dataset.train, f"{dataset.name} train"),
        TfdsRecords.open(dataset.test, f"{dataset.name} test"),
    )


def _how_to_get(name: str, data_dir: str | None) -> str:
    place = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"the image set {name!r} is not prepared in {data_dir or 'the default folder of tensorflow-datasets'} in the "
        f"array_record format. Prepare it once, in an environment that has TensorFlow:\n"
        f"  pip install tensorflow-datasets tensorflow && tfds build {name} --file_format=array_record{place}\n"
        f"then point --data_dir to that folder; or use --dataset=digits (embedded) or --dataset=folder:PATH."
    )

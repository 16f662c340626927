"""Image classification sets of tensorflow-datasets, read through array_record: TensorFlow is not imported."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from tensorflow_datasets.core.constants import DATA_DIR
from tensorflow_datasets.core.registered import DatasetNotFoundError

from ghn_jax.images.cache import cached_arrays
from ghn_jax.images.prepared_files import check_metadata, check_regular
from ghn_jax.images.records import CHUNK, shown

MAX_CLASSES = 100_000


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TfdsSet:
    """A prepared set.

    Attributes:
      name: full name with configuration and version, and folder: what a cached copy is known by.
      train, test: the undecoded records; `test` is the split "test", or "validation" where no test labels are public.
      num_classes: K.
      image_size: height and width if all images share one square size, else None.
    """

    name: str
    train: "TfdsRecords"
    test: "TfdsRecords"
    num_classes: int
    image_size: int | None


@dataclasses.dataclass(eq=False)
class TfdsRecords:
    """One split of a tensorflow-datasets set; its features ``image`` and ``label`` are used.

    Attributes:
      source: undecoded data source.
      title: names the split, for messages.
      labels: int32 (B,).
      shape: height, width and channels that the set declares; None for what may vary.
      rows: records of the source that are used, (B,).
      skipped: how many others there are.
    """

    source: Any
    title: str
    labels: np.ndarray
    shape: tuple[int | None, int | None, int | None]
    rows: np.ndarray
    skipped: int = 0

    @classmethod
    def open(cls, source: Any, title: str, num_classes: int, shape: Sequence[int | None]) -> "TfdsRecords":
        """Reads the labels of all records (once: they are cached under `title`).

        Raises:
          ValueError: for a record that cannot be read, or a label that is no class.
        """

        def read_labels() -> tuple[np.ndarray]:
            starts = shown(range(0, len(source), CHUNK), f"reading the labels of {len(source):,} images, once")
            chunks = (range(start, min(start + CHUNK, len(source))) for start in starts)
            return (np.array([int(r["label"]) for rows in chunks for r in _read(source, rows, title)], np.int64),)

        labels = cached_arrays(f"int64 labels {title} {len(source)}", read_labels)[0]
        wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(wrong):
            row = wrong[0]
            raise ValueError(f"record {row} of {title}: its label {labels[row]} is none of {num_classes} classes")
        height, width, channels = shape
        return cls(source, title, labels.astype(np.int32), (height, width, channels), np.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Encoded pictures; array_record compares each with its checksum."""
        return [record["image"] for record in _read(self.source, [int(self.rows[row]) for row in rows], self.title)]

    def name(self, row: int) -> str:
        """Number of the record and the split."""
        return f"record {self.rows[row]} of {self.title}"

    def check(self, image: Image.Image) -> None:
        """Raises ValueError for a picture of another height, width or number of channels than the set declares."""
        height, width, channels = self.shape
        if image.height != (height or image.height) or image.width != (width or image.width):
            raise ValueError(f"it has {image.height} x {image.width} pixels, and the set declares {height} x {width}")
        if channels == 1 and any(image.getchannel(0).tobytes() != image.getchannel(c).tobytes() for c in (1, 2)):
            raise ValueError("it has colours, and the set declares one channel")

    def take(self, rows: np.ndarray) -> "TfdsRecords":
        """The given rows; all others count as skipped."""
        skipped = self.skipped + len(self) - len(rows)
        return dataclasses.replace(self, labels=self.labels[rows], rows=self.rows[rows], skipped=skipped)


def _read(source: Any, rows: Sequence[int], title: str) -> list[dict[str, Any]]:
    """The records, undecoded. Raises ValueError that names the first one that cannot be read."""
    try:
        return source.__getitems__(list(rows))
    except Exception as error:  # of array_record, of the parser of examples, of a feature
        if len(rows) == 1:
            said = str(error).partition("\n")[0]
            raise ValueError(f"record {rows[0]} of {title} cannot be read ({said})") from error
    return [record for row in rows for record in _read(source, [row], title)]


def open_tfds(name: str, data_dir: str | None) -> TfdsSet:
    """Opens a set that has been prepared in the array_record format.

    Raises:
      ValueError: for a name that tensorflow-datasets does not know, a set that is not prepared (the message says how to
        prepare it), one that is damaged, or one that is no image classification.
    """
    base = name.partition("/")[0].partition(":")[0]
    folder = pathlib.Path(data_dir or DATA_DIR).expanduser() / base
    check_metadata(folder)
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
        features, splits = builder.info.features, builder.info.splits
    except (DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"{_how_to_get(name, data_dir)}\n(tensorflow-datasets says: {_said(error)})") from error
    except Exception as error:  # metadata may be anything, and its parsers raise anything
        raise ValueError(f"the metadata in {folder} cannot be read ({_said(error)}): prepare the set anew") from error
    if not splits:
        raise ValueError(_how_to_get(name, data_dir))
    if not {"image", "label"} <= set(features or ()):
        raise ValueError(
            f"{name!r} in {folder} is no image classification set: it has the features {sorted(features or ())}"
        )
    if not isinstance(features["image"], tfds.features.Image) or not isinstance(
        features["label"], tfds.features.ClassLabel
    ):
        raise ValueError(f"{name!r} in {folder} is no image classification set: {features}")
    num_classes = features["label"].num_classes
    if num_classes is None or not 2 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"{name!r} in {folder} has {num_classes} classes: between 2 and {MAX_CLASSES:,} are possible")
    test = next((split for split in ("test", "validation") if split in splits), None)
    if base == "imagenet2012":
        test = "validation"  # the labels of its test split are not public
    if test is None or not {"train", test} <= set(splits):
        raise ValueError(f"{name!r} in {folder} needs a train and a test or validation split; it has {sorted(splits)}")
    title = f"{builder.info.full_name} in {builder.data_path}"
    shape = features["image"].shape

    def records(split: str) -> TfdsRecords:
        _check_shards(splits[split], folder)
        try:
            source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        except (NotImplementedError, FileNotFoundError) as error:
            raise ValueError(f"{_how_to_get(name, data_dir)}\n(tensorflow-datasets says: {error})") from error
        return TfdsRecords.open(source, f"{title} {split}", num_classes, shape)

    own_size = shape[0] if shape[0] and shape[0] == shape[1] else None
    return TfdsSet(title, records("train"), records(test), num_classes, own_size)


def _check_shards(split: Any, folder: pathlib.Path) -> None:
    """Raises ValueError for a file of records that is missing, damaged, or holds another number than the metadata says.

    Nothing is allocated for the declared number before it is known to be true.
    """
    try:
        shards = list(zip(map(pathlib.Path, split.filepaths), split.shard_lengths, strict=True))
    except ValueError as error:
        raise ValueError(f"the metadata in {folder} cannot be read ({_said(error)}): prepare the set anew") from error
    for file, declared in shards:
        if not file.name.rpartition("-of-")[0].rpartition("-")[0].endswith(".array_record"):
            continue  # another format, which is refused with what to do about it
        check_regular(file)
        try:
            reader = ArrayRecordReader(str(file))
            found = reader.num_records()
            reader.close()
        except RuntimeError as error:
            raise ValueError(f"{file} cannot be read ({_said(error)}): prepare the set anew") from error
        if found != declared:
            raise ValueError(f"{file} holds {found} records, and the metadata beside it says {declared}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def _how_to_get(name: str, data_dir: str | None) -> str:
    place = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"the image set {name!r} is not prepared in {data_dir or 'the default folder of tensorflow-datasets'} in the "
        f"array_record format. Prepare it once, in an environment that has TensorFlow:\n"
        f"  pip install tensorflow-datasets tensorflow && tfds build {name} --file_format=array_record{place}\n"
        f"then point --data_dir to that folder; or use --dataset=digits (embedded) or --dataset=folder:PATH."
    )

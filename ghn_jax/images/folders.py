"""Pictures in folders: one folder for each class, in ``train`` and ``val``."""

import dataclasses
import hashlib
import os
import pathlib
import stat
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ghn_jax.images.decoding import MAX_BYTES
from ghn_jax.images.records import BadImages, settle

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


@dataclasses.dataclass(eq=False)
class FolderRecords:
    """Files of a folder that holds one folder per class; classes are numbered in the order of their names.

    Attributes:
      files: the pictures.
      labels: int32 (B,).
      skipped: pictures that were left out because they cannot be read.
    """

    files: list[pathlib.Path]
    labels: np.ndarray
    skipped: int = 0

    @classmethod
    def scan(cls, folder: pathlib.Path, classes: Sequence[str], bad_images: BadImages = "refuse") -> "FolderRecords":
        """Finds the pictures; each is looked at, but none is opened.

        Args:
          folder: holds the folders of the classes.
          classes: their names.
          bad_images: what to do about a picture that is empty, too large, no regular file, or not to be read.

        Raises:
          ValueError: for a class folder that is missing, holds no pictures or is not in `classes`; for pictures that
            cannot be read, all of them in one message, unless they are to be skipped.
        """
        unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes)
        if unknown:
            raise ValueError(f"{folder} has the class {unknown[0]!r}, which the training folder has not")
        files: list[pathlib.Path] = []
        labels: list[int] = []
        faults: list[str] = []
        for label, name in enumerate(classes):
            pictures = _pictures(folder / name)
            reasons = [_fault(file) for file in pictures]
            good = [file for file, reason in zip(pictures, reasons, strict=True) if reason is None]
            faults += [f"{file} {reason}" for file, reason in zip(pictures, reasons, strict=True) if reason is not None]
            if not pictures or (not good and bad_images == "skip"):
                kinds = ", ".join(sorted(PICTURE_SUFFIXES))
                raise ValueError(f"{folder / name} holds no pictures{' that can be read' * bool(faults)} ({kinds})")
            files += good
            labels += [label] * len(good)
        settle(faults, len(files) + len(faults), bad_images)
        return cls(files, np.array(labels, np.int32), len(faults))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The files as they are."""
        found: list[bytes] = []
        for row in rows:
            try:
                found.append(self.files[row].read_bytes())
            except OSError as error:
                raise ValueError(f"{self.files[row]} cannot be read ({error})") from error
        return found

    def name(self, row: int) -> str:
        """The file."""
        return str(self.files[row])

    def check(self, image: Image.Image) -> None:
        """Pictures of a folder may have any shape."""

    def take(self, rows: np.ndarray) -> "FolderRecords":
        """The given rows; all others count as skipped."""
        skipped = self.skipped + len(self) - len(rows)
        return FolderRecords([self.files[row] for row in rows], self.labels[rows], skipped)

    def stamp(self) -> str:
        """Changes when a file is added, removed, renamed or written to: what a cached copy depends on."""
        digest = hashlib.sha256()
        for file in self.files:
            status = file.stat()
            digest.update(f"{file} {status.st_mtime_ns} {status.st_size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def open_folder(folder: pathlib.Path, bad_images: BadImages) -> tuple[FolderRecords, FolderRecords, int, str]:
    """Training and test pictures, number of classes, and what a cached copy is known by.

    Without the folder ``train`` there are no training pictures: the set can only be evaluated on.

    Raises:
      ValueError: as `FolderRecords.scan`; without the folder ``val``, or with less than two classes.
    """
    try:
        if not (folder / "val").is_dir():
            needs = "folder:PATH needs PATH/val/CLASS/*, and PATH/train/CLASS/* to train on"
            raise ValueError(f"{folder / 'val'} is missing: {needs}")
        trains = (folder / "train").is_dir()
        first = folder / ("train" if trains else "val")
        classes = sorted(p.name for p in first.iterdir() if p.is_dir())
        if len(classes) < 2:
            raise ValueError(f"{first} needs one folder for each of at least 2 classes, found {classes}")
        none = FolderRecords([], np.zeros(0, np.int32))
        train = FolderRecords.scan(first, classes, bad_images) if trains else none
        test = FolderRecords.scan(folder / "val", classes, bad_images)
        return train, test, len(classes), f"{folder.resolve()} {train.stamp()} {test.stamp()}"
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be read ({error})") from error


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """Everything below a folder that is named like a picture, sorted, and links to folders, which are not followed.

    Raises:
      OSError: for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    found: list[pathlib.Path] = []
    for place, folders, files in os.walk(folder, onerror=refuse) if folder.exists() else ():
        entries = [pathlib.Path(place, name) for name in (*folders, *files)]
        found += [p for p in entries if p.suffix.lower() in PICTURE_SUFFIXES or (p.is_symlink() and p.is_dir())]
    return sorted(found)


def _fault(file: pathlib.Path) -> str | None:
    """What is wrong with a picture, without opening it; None if nothing."""
    try:
        status = file.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if not status.st_size:
        return "is empty"
    if status.st_size > MAX_BYTES:
        return f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}"
    return None if os.access(file, os.R_OK) else "cannot be read (no permission)"

"""Access to HDF5 files that names the file and the place of what is missing or damaged."""

import os

import h5py
import numpy as np


def open_file(path: str | os.PathLike[str]) -> h5py.File:
    """A file to read from; raises ValueError naming it if it is no complete HDF5 file."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{os.fspath(path)}: not a complete HDF5 file ({error})") from error


def dataset(parent: h5py.Group, place: str) -> h5py.Dataset:
    """The array at a place; raises ValueError naming the file if there is none."""
    found = parent.get(place)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{parent.file.filename}: {place!r} is missing")
    return found


def array(parent: h5py.Group, place: str) -> np.ndarray:
    """The values at a place; raises ValueError naming file and place if they are missing or cannot be read."""
    stored = dataset(parent, place)
    try:
        return np.asarray(stored)
    except OSError as error:
        raise ValueError(f"{parent.file.filename}: {place!r} cannot be read ({error})") from error


def group(parent: h5py.Group, place: str) -> h5py.Group:
    """The group at a place; raises ValueError naming the file if there is none."""
    found = parent.get(place)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{parent.file.filename}: {place!r} is missing")
    return found

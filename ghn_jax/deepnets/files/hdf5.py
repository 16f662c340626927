"""Typed access to HDF5 files that names what is missing."""

import h5py


def dataset(parent: h5py.Group, place: str) -> h5py.Dataset:
    """The array at a place; raises ValueError naming the file if there is none."""
    found = parent.get(place)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{parent.file.filename}: {place!r} is missing")
    return found


def group(parent: h5py.Group, place: str) -> h5py.Group:
    """The group at a place; raises ValueError naming the file if there is none."""
    found = parent.get(place)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{parent.file.filename}: {place!r} is missing")
    return found

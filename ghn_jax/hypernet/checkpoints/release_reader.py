"""Reads the public release's checkpoints, `torch.save` zips, without PyTorch and without executing what they name.

The zip is checked as a whole first (`bounded_files`), the pickle in it runs on a machine of our own
(`restricted_pickle`) that knows a handful of names; tensors are read-only views of storages, each read once.
"""

import io
import math
import os
import pathlib
import zipfile
from typing import Any, Final, NamedTuple

import numpy as np

from ghn_jax.hypernet.checkpoints.bounded_files import Archive, open_archive
from ghn_jax.hypernet.checkpoints.restricted_pickle import Names, RefusedPickleError, read_pickle

DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
"""Numbers in PyTorch's storages, by name of the storage's class."""

MAX_PICKLE_BYTES: Final = 1 << 25
_MAX_RANK = 8
_MAX_LENGTH = 1 << 40


class Storage(NamedTuple):
    """Flat numbers of a storage."""

    values: np.ndarray


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_tensor_v2``: a checked, read-only view of a storage.

    Raises:
      RefusedPickleError: for a tensor that does not lie in its storage.
    """
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise RefusedPickleError("a tensor is built from something that is not a storage with size and stride")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > _MAX_RANK or not all(map(_is_length, numbers)):
        raise RefusedPickleError("a tensor has an impossible size, stride or offset")
    values = storage.values
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(values):
        raise RefusedPickleError(f"a tensor of size {size} reaches beyond its storage of {len(values)} numbers")
    if math.prod(size) > len(values):
        raise RefusedPickleError(f"a tensor of size {size} is larger than its storage of {len(values)} numbers")
    strides = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False)


def _is_length(number: Any) -> bool:
    return type(number) is int and 0 <= number <= _MAX_LENGTH


def _rebuild_parameter(tensor: Any, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_parameter``."""
    if not isinstance(tensor, np.ndarray):
        raise RefusedPickleError("a parameter is built from something that is not a tensor")
    return tensor


TENSOR_NAMES: Names = {
    ("collections", "OrderedDict"): lambda: {},
    ("argparse", "Namespace"): lambda: {},  # options of training, which nobody here looks at
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}
"""What names mean in a checkpoint: the handful that rebuild tensors."""


class _Storages:
    """Storages of a zip, each read once however many tensors lie in it."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._loaded: dict[str, Storage] = {}

    def load(self, identity: Any) -> Storage:
        """The storage that ("storage", type, key, device, count) means."""
        match identity:
            case ("storage", np.dtype() as dtype, str(key), _, int(count)) if key.isalnum() and _is_length(count):
                if key not in self._loaded:
                    data = self._archive.read(f"{self._folder}data/{key}", count * dtype.itemsize)
                    if len(data) != count * dtype.itemsize:
                        raise RefusedPickleError(
                            f"storage {key} has {len(data)} bytes instead of {count * dtype.itemsize}"
                        )
                    self._loaded[key] = Storage(np.frombuffer(data, dtype))
                storage = self._loaded[key]
                if storage.values.dtype != dtype or len(storage.values) != count:
                    raise RefusedPickleError(f"storage {key} is said to be two different things")
                return storage
            case _:
                raise RefusedPickleError("unknown kind of stored object")


def read_torch_zip(path: str | os.PathLike[str], *, keep_unknown: bool = False, content: bytes | None = None) -> Any:
    """What was saved, with read-only NumPy arrays for tensors. Nothing that the file names is imported or called.

    Args:
      path: the file.
      keep_unknown: whether objects of other kinds, such as those of training, become `Unresolved` instead of an error.
      content: the file's bytes, if they are at hand: then `path` is only a name.

    Raises:
      ValueError: for a file that is no such zip, is truncated or damaged, or names anything but tensors.
    """
    source = pathlib.Path(path)
    with open_archive(source, {zipfile.ZIP_STORED}, content) as archive:
        pickles = [name for name in archive.sizes if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"{source}: no checkpoint of the release: the zip holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.sizes and archive.read(f"{folder}byteorder", 100) != b"little":
            raise ValueError(f"{source}: only little-endian checkpoints can be read")
        pickled = io.BytesIO(archive.read(pickles[0], MAX_PICKLE_BYTES))
        try:
            return read_pickle(pickled, TENSOR_NAMES, _Storages(archive, folder).load, keep_unknown=keep_unknown)
        except RefusedPickleError as error:
            raise ValueError(f"{source}: refused: {error}") from None

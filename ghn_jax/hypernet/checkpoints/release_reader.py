"""Reads the public release's checkpoints, `torch.save` zips, without PyTorch and without executing what they name.

A pickle is a program: its GLOBAL instructions name functions that a plain unpickler would import and call. Here
the only names that resolve are the handful that rebuild tensors, each to a function of this file.
"""

import collections
import io
import math
import os
import pathlib
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _StorageType(NamedTuple):
    """Stands for a storage class of PyTorch, such as ``torch.FloatStorage``."""

    dtype: np.dtype


class _Storage(NamedTuple):
    """Flat numbers of a storage."""

    values: np.ndarray


class _Refused(pickle.UnpicklingError):
    """The file asks for something that is not allowed."""


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_tensor_v2``: a checked view of a storage, copied."""
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor is built from something that is not a storage")
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise _Refused(f"a tensor has impossible size {size}, stride {stride} or offset {offset}")
    values = storage.values
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(values):
        raise _Refused(f"a tensor of size {size} reaches beyond its storage of {len(values)} numbers")
    if math.prod(size) > len(values):
        raise _Refused(f"a tensor of size {size} is larger than its storage of {len(values)} numbers")
    strides = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False).copy()


def _rebuild_parameter(tensor: Any, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_parameter``."""
    if not isinstance(tensor, np.ndarray):
        raise _Refused("a parameter is built from something that is not a tensor")
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Resolves nothing but `_ALLOWED`."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._folder = folder

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Raises for every name but the allowed ones."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise _Refused(
                f"the file names {module_name}.{global_name}, which is not allowed in a checkpoint"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """A storage ("storage", type, key, device, count) from its entry in the zip."""
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), _, int(count)) if key.isalnum():
                data = self._archive.read(f"{self._folder}data/{key}")
                if len(data) != count * dtype.itemsize:
                    raise _Refused(f"storage {key} has {len(data)} bytes instead of {count * dtype.itemsize}")
                return _Storage(np.frombuffer(data, dtype))
            case _:
                raise _Refused(f"unknown kind of stored object: {str(pid)[:80]}")


def read_torch_zip(path: str | os.PathLike[str]) -> Any:
    """What was saved, with NumPy arrays for tensors. Nothing that the file names is imported or called.

    Raises:
      ValueError: for a file that is no such zip, is truncated or damaged, or names anything but tensors.
    """
    source = pathlib.Path(path)
    try:
        with zipfile.ZipFile(source) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise ValueError(f"{source}: no checkpoint of the release: the zip holds no data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError(f"{source}: only little-endian checkpoints can be read")
            return _Unpickler(io.BytesIO(archive.read(pickles[0])), archive, folder).load()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source}: not a complete zip file ({error}); get the checkpoint again") from None
    except _Refused as error:
        raise ValueError(f"{source}: refused: {error}") from None
    except KeyError as error:
        raise ValueError(f"{source}: damaged checkpoint: {error.args[0]}") from None
    except (pickle.UnpicklingError, EOFError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{source}: damaged checkpoint: {error}") from None

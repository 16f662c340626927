"""Writes the public release's checkpoint format, so that `torch.load` reads what was trained here."""

import os
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ghn_jax.files import atomic_file

_ALIGNMENT = 64


def write_torch_zip(path: str | os.PathLike[str], state: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes float32 tensors under "state_dict" beside plain values, as `torch.save` of PyTorch 1.6 and later does.

    Args:
      path: replaced atomically.
      state: tensors by name.
      meta: further entries of the saved dictionary: str, bool, int, float, None, tuples, lists and dicts of them.
    """
    storages = [np.ascontiguousarray(array, "<f4") for array in state.values()]
    with atomic_file(path) as temporary:
        folder = pathlib.Path(path).stem or "archive"
        with open(temporary, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _add(file, archive, f"{folder}/data.pkl", _pickle(state, meta))
            _add(file, archive, f"{folder}/byteorder", b"little")
            for index, array in enumerate(storages):
                _add(file, archive, f"{folder}/data/{index}", array.tobytes())
            _add(file, archive, f"{folder}/version", b"3\n")


def _add(file: BinaryIO, archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds an entry whose data begins at a multiple of 64 bytes (PyTorch maps storages into memory)."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    header = 30 + len(name.encode()) + 4
    padding = -(file.tell() + header) % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(entry, data)


def _pickle(state: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """Protocol 2 pickle of {"state_dict": OrderedDict of tensors, **meta}; tensors refer to storages by number."""
    out = [b"\x80\x02}(", _value("state_dict"), b"ccollections\nOrderedDict\n)R("]
    for index, (name, array) in enumerate(state.items()):
        strides = tuple(int(step) // array.itemsize for step in np.empty(array.shape, array.dtype).strides)
        out += [
            _value(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + _value("storage") + b"ctorch\nFloatStorage\n" + _value(str(index)) + _value("cpu"),
            _value(array.size) + b"tQ",
            _value(0) + _value(tuple(array.shape)) + _value(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    out.append(b"u")
    for key, value in meta.items():
        out += [_value(key), _value(value)]
    return b"".join([*out, b"u."])


def _value(value: Any) -> bytes:  # noqa: PLR0911
    """Pickle instructions that push a plain value."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(_value(item) for item in value) + b"t"
        case list():
            return b"](" + b"".join(_value(item) for item in value) + b"e"
        case dict():
            return b"}(" + b"".join(_value(k) + _value(v) for k, v in value.items()) + b"u"
        case _:
            raise ValueError(f"a checkpoint of the release cannot hold {value!r} of type {type(value).__name__}")

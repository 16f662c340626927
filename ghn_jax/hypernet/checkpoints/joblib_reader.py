"""Reads GHN-3's published files: pickles written by `joblib.dump`, uncompressed, of a state dict.

Each tensor lies over a storage that is a whole stream of its own, of the kind that `torch.save` wrote before its zips.
Nothing that either names is imported or called, and the numbers are views of what was read.
"""

import io
import os
import pathlib
from typing import Any, Final

import numpy as np

from ghn_jax.hypernet.checkpoints.release_reader import DTYPES, TENSOR_NAMES, Storage, read_torch_zip
from ghn_jax.hypernet.checkpoints.restricted_pickle import Names, RefusedPickleError, read_pickle

_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION: Final = 1001
_COUNT_BYTES: Final = 8
_PROTO = b"\x80"
"""First byte of every pickle that `joblib.dump` writes."""

_STORAGE_NAMES: Names = {("torch", name): dtype for name, dtype in DTYPES.items()}


def read_release_file(path: str | os.PathLike[str], *, content: bytes | None = None) -> Any:
    """What a ``.pt`` file of a release holds, whichever of the two forms it has; tensors are read-only NumPy arrays.

    Args:
      path: the file.
      content: the file's bytes, if they are at hand: then `path` is only a name.

    Raises:
      ValueError: for a file of another form, or one that is damaged or names anything but tensors; names the file.
    """
    source = pathlib.Path(path)
    if content is None and not source.is_file():
        raise ValueError(f"{source}: no regular file")
    try:
        with open(source, "rb") if content is None else io.BytesIO(content) as file:
            is_joblib = file.read(1) == _PROTO
            size = file.seek(0, 2)
            file.seek(0)
            if is_joblib:
                saved = read_pickle(file, _NAMES, max_bytes=size)
                if file.tell() != size:
                    raise RefusedPickleError(f"{size - file.tell():,} bytes follow its end")
                return saved
    except RefusedPickleError as error:
        raise ValueError(f"{source}: refused: {error}") from None
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error}") from None
    return read_torch_zip(source, content=content)


def load_from_bytes(data: Any) -> Storage:
    """Stands for ``torch.storage._load_from_bytes``: the storage in a stream of PyTorch before 1.6.

    Raises:
      RefusedPickleError: for anything but one storage, whole and alone.
    """
    if type(data) is not bytes:
        raise RefusedPickleError("a storage is loaded from something that is not bytes")
    file = io.BytesIO(data)
    magic, version = read_pickle(file, {}), read_pickle(file, {})
    if type(magic) is not int or magic != _MAGIC_NUMBER or type(version) is not int or version != _PROTOCOL_VERSION:
        raise RefusedPickleError("a storage does not begin as one of PyTorch does")
    system = read_pickle(file, {})
    if type(system) is not dict or system.get("little_endian") is not True:
        raise RefusedPickleError("only little-endian storages can be read")
    declared: list[tuple[str, np.dtype, int]] = []
    read_pickle(file, _STORAGE_NAMES, lambda identity: declared.append(_declared(identity)))
    keys = read_pickle(file, {})
    if len(declared) != 1 or type(keys) is not list or len(keys) != 1 or keys[0] != declared[0][0]:
        raise RefusedPickleError("a stream holds another number of storages than one")
    _, dtype, count = declared[0]
    start = file.tell() + _COUNT_BYTES
    stored = int.from_bytes(data[file.tell() : start], "little")
    if stored != count or len(data) != start + count * dtype.itemsize:
        raise RefusedPickleError(f"a storage of {count} numbers has {max(0, len(data) - start)} bytes of them")
    return Storage(np.frombuffer(data, dtype, count, start))


def _declared(identity: Any) -> tuple[str, np.dtype, int]:
    """Key, type and number of numbers from ("storage", type, key, device, count, None)."""
    match identity:
        case ("storage", np.dtype() as dtype, str(key), _, int(count), None) if type(count) is int and count >= 0:
            return key, dtype, count
        case _:
            raise RefusedPickleError("unknown kind of stored object")


_NAMES: Names = {**TENSOR_NAMES, ("torch.storage", "_load_from_bytes"): load_from_bytes}

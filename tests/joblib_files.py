"""Writes the form of GHN-3's published files: a pickle of tensors over storages that are streams of their own.

PyTorch is not needed: stand-ins for the few names that such a file holds are put where `pickle` looks for them.
"""

import collections
import contextlib
import io
import pathlib
import pickle
import sys
import types
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def _named(module: str, name: str) -> Any:
    """A function that a pickle writes down as this name."""

    def function(*_: Any) -> None:
        raise AssertionError(f"{module}.{name} was called")

    function.__module__, function.__name__, function.__qualname__ = module, name, name
    return function


REBUILD = _named("torch._utils", "_rebuild_tensor_v2")
LOAD = _named("torch.storage", "_load_from_bytes")
STORAGE = _named("torch", "FloatStorage")


@contextlib.contextmanager
def _stand_ins() -> Generator[None]:
    """The three functions where `pickle` checks that their names lead to them."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils", "torch.storage")}
    for function in (REBUILD, LOAD, STORAGE):
        setattr(modules[function.__module__], function.__name__, function)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


class _Identity(str):
    """Pickles as a persistent id."""

    declared: tuple[Any, ...]


class _StoragePickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.declared if isinstance(obj, _Identity) else None


def storage_stream(
    values: np.ndarray, *, count: int | None = None, keys: Any = None, system: Any = None, declared: Any = None
) -> bytes:
    """What PyTorch wrote for a storage before 1.6; the keyword arguments make it wrong."""
    key = "94000000"
    identity = _Identity(key)
    identity.declared = declared or ("storage", STORAGE, key, "cpu", values.size if count is None else count, None)
    file = io.BytesIO()
    with _stand_ins():
        for value in (MAGIC_NUMBER, 1001, SYSTEM if system is None else system):
            pickle.dump(value, file, 2)
        _StoragePickler(file, 2).dump(identity)
        pickle.dump([key] if keys is None else keys, file, 2)
    file.write(values.size.to_bytes(8, "little") + values.astype("<f4").tobytes())
    return file.getvalue()


def write_joblib(
    path: pathlib.Path, state: Mapping[str, np.ndarray], streams: Mapping[str, bytes] | None = None
) -> None:
    """A state dict; `streams` take the place of the storages of some tensors."""
    tensors: collections.OrderedDict[str, Any] = collections.OrderedDict()
    for name, array in state.items():
        stream = (streams or {}).get(name, storage_stream(array))
        strides = tuple(step // array.itemsize for step in array.strides)
        storage = _Calls(LOAD, stream)
        tensors[name] = _Calls(REBUILD, storage, 0, array.shape, strides, False, collections.OrderedDict())
    with _stand_ins():
        path.write_bytes(pickle.dumps(tensors, 4))

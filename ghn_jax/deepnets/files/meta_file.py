"""The JSON file of a data set, read one network at a time: a million of them would take gigabytes as objects."""

import array
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Generator
from typing import Any

import numpy as np

from ghn_jax.deepnets.files.hdf5 import open_regular
from ghn_jax.deepnets.files.json_scanner import JsonScanner, parse_json

_MOST_NAMES = 2**16
_TABLES = ("primitives_ext", "unique_op_names")


def meta_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """JSON file that belongs to an HDF5 file: ``NAME.hdf5`` -> ``NAME_meta.json``."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}_meta.json")


@dataclasses.dataclass(frozen=True, eq=False)
class MetaFile:
    """Where the networks of one split stand in a JSON file, and the tables beside them.

    Attributes:
      path: the file.
      split: the split.
      starts, ends: int64, first byte of each entry of ``nets`` and the byte behind it.
      types, op_names: the tables ``primitives_ext`` and ``unique_op_names``.
      plan: what its generator noted of how it was made; None if it noted nothing.
    """

    path: pathlib.Path
    split: str
    starts: np.ndarray
    ends: np.ndarray
    types: dict[str, str]
    op_names: dict[str, str]
    plan: Any

    @classmethod
    def scan(cls, path: pathlib.Path, split: str) -> "MetaFile":
        """Reads through a file once; raises ValueError if it is cut off or lacks something, which it names."""
        found: dict[str, Any] = {}
        splits: list[str] = []
        spans = array.array("q")
        with os.fdopen(open_regular(path), "rb", buffering=0) as file, _naming(path):
            scanner = JsonScanner(file)
            for name in scanner.members():
                splits.append(name)
                if name != split:
                    scanner.pass_over()
                    continue
                for key in scanner.members():
                    if key == "nets":
                        for start, end in scanner.spans():
                            spans.extend((start, end))
                        found[key] = True
                    elif key in ("meta", "plan"):
                        found[key] = parse_json(scanner.value())
                    else:
                        scanner.pass_over()
            scanner.end()
        if split not in splits:
            raise ValueError(f"{path}: split {split!r} is missing; splits there: {', '.join(splits) or 'none'}")
        for key in ("nets", "meta"):
            if key not in found:
                raise ValueError(f"{path}: {key!r} of split {split!r} is missing")
        for key in _TABLES:
            if not _is_table(found["meta"].get(key) if isinstance(found["meta"], dict) else None):
                raise ValueError(f"{path}: table {key!r} of split {split!r} is missing or not one of names by number")
        types, op_names = (found["meta"][key] for key in _TABLES)
        places = np.array(spans, np.int64).reshape(-1, 2)
        return cls(path, split, places[:, 0], places[:, 1], types, op_names, found.get("plan"))

    def __len__(self) -> int:
        return len(self.starts)

    def record(self, index: int) -> dict[str, Any]:
        """One entry of ``nets``; raises ValueError naming file and network if it is no object."""
        start, end = int(self.starts[index]), int(self.ends[index])
        with os.fdopen(open_regular(self.path), "rb", buffering=0) as file:
            try:
                record = parse_json(os.pread(file.fileno(), end - start, start))
                if not isinstance(record, dict):
                    raise ValueError("it is no object")
            except ValueError as error:
                raise ValueError(f"{self.path}: net {index} of {self.split!r}: {error}") from None
        return record


def split_names(path: pathlib.Path) -> list[str]:
    """The splits in a JSON file; raises ValueError naming it if it is not complete."""
    with os.fdopen(open_regular(path), "rb", buffering=0) as file, _naming(path):
        scanner = JsonScanner(file)
        names: list[str] = []
        for name in scanner.members():
            names.append(name)
            scanner.pass_over()
        scanner.end()
    return names


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: not a complete JSON file of networks ({error})") from None


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and len(table) <= _MOST_NAMES
        and all(number.isdecimal() and isinstance(name, str) for number, name in table.items())
    )

"""The JSON file of a data set, read one network at a time: a million of them would take gigabytes as objects."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

_SPACE = re.compile(r"[ \t\r\n]*")


def meta_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """JSON file that belongs to an HDF5 file: ``NAME.hdf5`` -> ``NAME_meta.json``."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}_meta.json")


@dataclasses.dataclass(frozen=True, eq=False)
class MetaFile:
    """Where the networks of one split stand in a JSON file, and the tables beside them.

    Attributes:
      path: the file.
      starts, ends: int64, first byte of each entry of ``nets`` and the byte behind it.
      types, op_names: the tables ``primitives_ext`` and ``unique_op_names``.
    """

    path: pathlib.Path
    starts: np.ndarray
    ends: np.ndarray
    types: dict[str, str]
    op_names: dict[str, str]

    @classmethod
    def scan(cls, path: pathlib.Path, split: str) -> "MetaFile":
        """Reads through a file once; raises ValueError if it is cut off or lacks something, which it names."""
        spans: list[tuple[int, int]] | None = None
        tables: dict[str, Any] | None = None
        splits: list[str] = []
        scanner = _Scanner(path.read_bytes().decode("latin-1"))  # one character a byte, whatever the text
        try:
            for name in scanner.members():
                splits.append(name)
                if name != split:
                    scanner.value()
                    continue
                for key in scanner.members():
                    if key == "nets":
                        spans = list(scanner.spans())
                    elif key == "meta":
                        tables = scanner.value()
                    else:
                        scanner.value()
        except ValueError as error:
            raise ValueError(f"{path}: not a complete JSON file of networks ({error})") from error
        if split not in splits:
            raise ValueError(f"{path}: split {split!r} is missing; splits there: {', '.join(splits) or 'none'}")
        if spans is None or not isinstance(tables, dict):
            missing = "nets" if spans is None else "meta"
            raise ValueError(f"{path}: {missing!r} of split {split!r} is missing")
        for key in ("primitives_ext", "unique_op_names"):
            if key not in tables:
                raise ValueError(f"{path}: table {key!r} of split {split!r} is missing")
        places = np.array(spans, np.int64).reshape(-1, 2)
        return cls(path, places[:, 0], places[:, 1], tables["primitives_ext"], tables["unique_op_names"])

    def __len__(self) -> int:
        return len(self.starts)

    def record(self, index: int) -> dict[str, Any]:
        """One entry of ``nets``."""
        start, end = int(self.starts[index]), int(self.ends[index])
        with self.path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))


class _Scanner:
    """Walks through JSON text; what is not asked for is parsed and forgotten."""

    def __init__(self, text: str):
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder()

    def value(self) -> Any:
        """The value that comes next."""
        self._skip()
        value, self._at = self._decoder.raw_decode(self._text, self._at)
        return value

    def members(self) -> Iterator[str]:
        """Keys of the object that comes next; the caller takes each value before the next key."""
        self._take("{")
        if self._skip() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            self._take(":")
            yield str(key)
            if self._take(",}") == "}":
                return

    def spans(self) -> Iterator[tuple[int, int]]:
        """First character of each item of the list that comes next, and the one behind it."""
        self._take("[")
        if self._skip() == "]":
            self._at += 1
            return
        while True:
            self._skip()
            start = self._at
            self.value()
            yield start, self._at
            if self._take(",]") == "]":
                return

    def _skip(self) -> str:
        """Passes over blanks; returns the character that comes next, empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, allowed: str) -> str:
        found = self._skip()
        if not found or found not in allowed:
            raise ValueError(f"expected one of {allowed!r} at byte {self._at}, found {found or 'the end'!r}")
        self._at += 1
        return found

"""Dataclasses of plain values from JSON and JSON lines, with exact types."""

import dataclasses
import functools
import json
import pathlib
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from ghn_jax.files import atomic_file

Record = TypeVar("Record")


def checked_fields(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Values of all fields of a dataclass, checked; those of fields that are dataclasses are left as they are.

    Args:
      cls: a dataclass whose fields are bool, int, float, str, Path, Literal, tuples of them, or None or one of them.
      data: what JSON held.
      where: what it describes, for errors.

    Raises:
      ValueError: for missing or unknown fields and values of another type; names the field.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, got {reprlib.repr(data)}")
    for problem, wrong in (("lacks", set(names) - set(data)), ("has the unknown", set(data) - set(names))):
        if wrong:
            raise ValueError(f"{where} {problem} {', '.join(sorted(map(str, wrong))):.500}")
    hints = _hints(cls)
    return {name: _checked(hints[name], data[name], f"{where}: {name}") for name in names}


def check_types(instance: Any, where: str) -> None:
    """Raises ValueError naming a field of a dataclass whose value is not of the type that `checked_fields` asks for."""
    values = {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}
    for name, value in checked_fields(type(instance), values, where).items():
        if type(value) is tuple and type(values[name]) is not tuple:
            raise ValueError(f"{where}: {name} must be a tuple, got {reprlib.repr(values[name])}")


_hints = functools.cache(typing.get_type_hints)


def _checked(hint: Any, value: Any, where: str) -> Any:
    """A value from JSON as the annotated type, exactly: True is no int, 1.0 neither."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        every = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(value) == len(every):
            return tuple(_checked(part, item, where) for part, item in zip(every, value, strict=True))
    elif origin in (typing.Union, types.UnionType):
        (other,) = (part for part in arguments if part is not types.NoneType)
        return None if value is None else _checked(other, value, where)
    elif origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
    elif hint is pathlib.Path:
        if type(value) is str:
            return pathlib.Path(value)
    elif hint is float:
        if type(value) in (int, float):
            return float(value)
    elif type(value) is hint or dataclasses.is_dataclass(hint):
        return value
    raise ValueError(f"{where} must be {hint.__name__ if isinstance(hint, type) else hint}, got {reprlib.repr(value)}")


def append_lines(path: pathlib.Path, records: Sequence[Any]) -> None:
    """Adds dataclasses to a file, one JSON line each, all of them in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records))


def read_lines(cls: type[Record], path: pathlib.Path, what: str) -> list[Record]:
    """What `append_lines` wrote, none if there is no file; a last line cut short by a kill is removed from it.

    Args:
      cls: of the records, see `checked_fields`.
      path: of the file.
      what: name of a record, for errors.

    Raises:
      ValueError: for a file of something else or a damaged one; names the line.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with atomic_file(path) as new:
            new.write_bytes(whole)
    records: list[Record] = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            records.append(cls(**checked_fields(cls, json.loads(line), "it")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}, is no {what}: {error}; remove the line") from None
    return records

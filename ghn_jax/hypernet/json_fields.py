"""Dataclasses of plain values from JSON, with exact types."""

import dataclasses
import functools
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def checked_fields(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Values of all fields of a dataclass, checked; those of fields that are dataclasses are left as they are.

    Args:
      cls: a dataclass whose fields are bool, int, float, str, Literal, tuples of them, or None or one of them.
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
    elif hint is float:
        if type(value) in (int, float):
            return float(value)
    elif type(value) is hint or dataclasses.is_dataclass(hint):
        return value
    raise ValueError(f"{where} must be {hint.__name__ if isinstance(hint, type) else hint}, got {reprlib.repr(value)}")

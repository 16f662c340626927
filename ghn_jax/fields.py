"""Checks of configurations: what each number may be, said once in a table beside the dataclass.

A configuration is checked when it is made, wherever it comes from: a command line, a file or a call of the library.
"""

import dataclasses
import functools
import math
import numbers
import sys
import typing
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a field may hold; those that are not finite are in no range.

    Attributes:
      low, high: smallest and largest number.
      whole: whether it must be an integer.
      open: whether `low` itself is left out.
      below: whether `high` itself is left out.
    """

    low: float
    high: float = math.inf
    whole: bool = True
    open: bool = False
    below: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is a number of the range; True and False are none."""
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        above = number > self.low if self.open else number >= self.low
        below = number < self.high if self.below else number <= self.high
        return above and below and abs(number) <= sys.float_info.max

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        if math.isinf(self.high):
            return f"{kind} {'above' if self.open else 'of at least'} {self.low:,}"
        low = f"above {self.low:,} up to" if self.open else f"from {self.low:,} to"
        return f"{kind} {low} {'below ' if self.below else ''}{self.high:,}"


COUNT = Range(1, 1_000_000_000)
"""How many of something; steps are counted in 32 bits."""
COUNT_OR_NONE = Range(0, 1_000_000_000)
WORKERS = Range(0, 1_024)
"""Processes or threads, none of which may be meant."""
IMAGE_SIZE = Range(1, 4_096)
SEED = Range(0, 2**32 - 1)
"""Seeds that NumPy and JAX both take."""


def check_number(name: str, value: object, allowed: Range) -> None:
    """Raises ValueError, naming the argument, for a value that is not in its range."""
    if not allowed.holds(value):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def check_fields(config: Any, ranges: Mapping[str, Range]) -> None:
    """Checks the numbers, choices and flags of a dataclass.

    Args:
      config: the dataclass; of a tuple every item counts.
      ranges: of its numbers, by the name of the field.

    Raises:
      ValueError: naming the field.
    """
    for name, (optional, choices) in _facts(type(config)).items():
        value = getattr(config, name)
        if value is None and optional:
            continue
        if name in ranges:
            for item in value if isinstance(value, tuple) else (value,):
                check_number(name, item, ranges[name])
        elif choices and not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def refuse_idle(config: Any, names: tuple[str, ...], why: str) -> None:
    """Raises ValueError for fields that were changed though they have no effect.

    Args:
      config: a dataclass.
      names: fields that have none.
      why: what takes it from them, such as ``without --distributed``.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise ValueError(f"{name} = {getattr(config, name)!r} has no effect {why}: leave it out")


@functools.cache
def _facts(cls: type) -> Mapping[str, tuple[bool, tuple[Any, ...]]]:
    """Of each field: whether it may be None, and its choices, () if it is free."""
    hints = typing.get_type_hints(cls)
    return {field.name: _facts_of(hints[field.name]) for field in dataclasses.fields(cls)}


def _facts_of(hint: Any) -> tuple[bool, tuple[Any, ...]]:
    parts = typing.get_args(hint)
    if hint is bool:
        return False, (False, True)
    return type(None) in parts, parts if typing.get_origin(hint) is Literal else ()

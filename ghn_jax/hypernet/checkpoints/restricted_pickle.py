"""Reads pickles of plain values and tensors without `pickle`: nothing that a file names is imported or called.

A pickle is a program for a stack machine, and a hostile one can exhaust the machine that runs it before a single name
is resolved: by nesting, by values that hold one another exponentially often, by declared sizes. This is a small machine
of our own over `pickletools.genops`. It knows the instructions that `torch.save` and `joblib.dump` write for tensors,
no others; names mean what the caller's table says; everything is bounded.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Final

from ghn_jax.hypernet.checkpoints.bounded_files import BoundedFile

Names = Mapping[tuple[str, str], Any]
"""What (module, name) stands for: a value, or a function of ours, which gets the arguments that the file gives."""

MAX_INSTRUCTIONS: Final = 300_000
"""In one pickle. A training checkpoint of the largest published hypernetwork has about 50,000."""
MAX_DEPTH: Final = 32
"""Of containers in containers."""
MAX_VALUES: Final = 1_000_000
"""That are met when all containers are walked, those held many times as often as they are held."""
MAX_KEY: Final = 1 << 40
"""Whole numbers as keys of dictionaries; larger ones can be chosen so that all have the same hash."""
MAX_TEXT: Final = 1 << 16
"""Bytes of a string."""

_PROTOCOLS = (2, 3, 4, 5)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE")
_BYTES = ("BINBYTES", "SHORT_BINBYTES")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class RefusedPickleError(ValueError):
    """The file asks for something that is not allowed, or is damaged; the reader of the file adds its name."""


@dataclasses.dataclass(frozen=True)
class Unresolved:
    """A name that the table does not have, or something that it would have made; its arguments are dropped."""

    module: str
    name: str


def read_pickle(
    file: BinaryIO,
    names: Names,
    persistent: Callable[[Any], Any] | None = None,
    *,
    max_bytes: int = MAX_TEXT,
    keep_unknown: bool = False,
) -> Any:
    """Reads one pickle from where an open file stands, to just behind it.

    Args:
      file: can be read and moved in.
      names: the only names that resolve. A function gets positional arguments of any type, which it has to check
        without hashing, comparing or printing them; it reports what it cannot take by a ValueError.
      persistent: gives what a persistent id stands for; it has to check the id.
      max_bytes: largest string of bytes, such as a whole storage.
      keep_unknown: whether other names, and what is made of them, become `Unresolved` instead of an error.

    Returns:
      dict (with keys of str and int), list, tuple, str, bytes, int, float, bool, None and what functions returned:
      at most `MAX_DEPTH` deep and of `MAX_VALUES` values, however often one is shared, so that it can be walked.

    Raises:
      RefusedPickleError: for a damaged or hostile pickle.
    """
    machine = _Machine(names, persistent, keep_unknown, max_bytes)
    try:
        for count, (instruction, argument, _) in enumerate(
            pickletools.genops(BoundedFile(file, max(max_bytes, MAX_TEXT)))  # pyright: ignore[reportArgumentType]
        ):
            if count == MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            machine.run(instruction.name, argument)
        return machine.result()
    except RefusedPickleError:
        raise
    except IndexError:
        raise RefusedPickleError("an instruction lacks its arguments") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise RefusedPickleError(f"damaged: {error}") from None


class _Machine:
    """Stack and memo. Nothing here compares, hashes or prints a container that the file made."""

    def __init__(
        self, names: Names, persistent: Callable[[Any], Any] | None, keep_unknown: bool, max_bytes: int
    ) -> None:
        self._names = names
        self._persistent = persistent
        self._keep_unknown = keep_unknown
        self._max_bytes = max_bytes
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._values_left = MAX_VALUES

    def result(self) -> Any:
        """What the finished program leaves behind."""
        (value,) = self._stack
        self._walk(value)
        return value

    def run(self, name: str, argument: Any) -> None:  # noqa: PLR0912
        """One instruction."""
        stack = self._stack
        if name in _NUMBERS:
            stack.append(argument)
        elif name in _TEXTS:
            stack.append(_text(argument))
        elif name in _BYTES:
            if len(argument) > self._max_bytes:
                raise RefusedPickleError(f"{len(argument):,} bytes in one piece, at most {self._max_bytes:,} may be")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._pop_many(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memorise(len(self._memo) if name == "MEMOIZE" else argument)
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise RefusedPickleError(f"the value {argument} is asked for before it is made")
            stack.append(self._memo[argument])
        elif name == "PROTO":
            if argument not in _PROTOCOLS:
                raise RefusedPickleError(f"pickle protocol {argument}; known: 2 to 5")
        elif name == "MARK":
            stack.append(_MARK)
        elif name not in ("FRAME", "STOP"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        """Instructions that put values into others, and those that name something."""
        stack = self._stack
        match name:
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "SETITEM":
                self._set_items(self._pop_many(2))
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "APPEND":
                self._append(self._pop_many(1))
            case "APPENDS":
                self._append(self._pop_to_mark())
            case "GLOBAL":
                stack.append(self._resolve(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self._resolve(*self._pop_many(2)))
            case "REDUCE" | "NEWOBJ":
                stack.append(self._call(*self._pop_many(2)))
            case "BUILD":
                self._set_state(*self._pop_many(2))
            case "BINPERSID" if self._persistent is not None:
                (identity,) = self._pop_many(1)
                self._walk(identity)
                stack.append(self._persistent(identity))
            case _:
                raise RefusedPickleError(f"the instruction {name} is not allowed in a checkpoint")

    def _pop_many(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise RefusedPickleError("an instruction lacks its arguments")
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        values.reverse()
        return values

    def _memorise(self, index: int) -> None:
        if index >= MAX_INSTRUCTIONS:
            raise RefusedPickleError(f"value number {index:,} is to be remembered")
        (self._memo[index],) = self._pop_many(1)
        self._stack.append(self._memo[index])

    def _set_items(self, items: Sequence[Any]) -> None:
        if len(items) % 2:
            raise RefusedPickleError("a dictionary has a key without a value")
        (target,) = self._pop_many(1)
        self._stack.append(target)
        if isinstance(target, Unresolved):
            return
        if type(target) is not dict:
            raise RefusedPickleError("items are put into something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int) or (type(key) is int and abs(key) > MAX_KEY):
                raise RefusedPickleError(f"a dictionary has a key of type {type(key).__name__}, or a huge number")
            if key in target:
                raise RefusedPickleError(f"a dictionary has the key {key!r} twice")
            target[key] = value

    def _append(self, items: Sequence[Any]) -> None:
        (target,) = self._pop_many(1)
        self._stack.append(target)
        if isinstance(target, Unresolved):
            return
        if type(target) is not list:
            raise RefusedPickleError("items are appended to something that is not a list")
        target.extend(items)

    def _resolve(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise RefusedPickleError("a name is not text")
        if (module, name) in self._names:
            return self._names[module, name]
        if self._keep_unknown:
            return Unresolved(module, name)
        raise RefusedPickleError(f"the file names {module}.{name}, which is not allowed in a checkpoint")

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(arguments) is not tuple:
            raise RefusedPickleError("a name is called without a tuple of arguments")
        if isinstance(function, Unresolved):
            return function
        if not callable(function):
            raise RefusedPickleError("something is called that is not a function")
        self._walk(arguments)
        return function(*arguments)

    def _set_state(self, target: Any, state: Any) -> None:
        """Attributes, such as ``_metadata`` of a state dict, say nothing that a tensor's name and shape do not."""
        if type(target) is not dict and not isinstance(target, Unresolved):
            raise RefusedPickleError("attributes are set of something that has none")
        self._walk(state)
        self._stack.append(target)

    def _walk(self, value: Any) -> None:
        """Raises for what is too deep or holds too many values, in the course of the whole pickle."""
        levels = [value]
        for _ in range(MAX_DEPTH):
            below: list[Any] = []
            for item in levels:
                if type(item) is dict:
                    below.extend(item.values())
                elif type(item) in (list, tuple):
                    below.extend(item)
                self._values_left -= 1
                if len(below) > self._values_left:
                    raise RefusedPickleError(f"more than {MAX_VALUES:,} values, counted as often as they are held")
            if not below:
                return
            levels = below
        raise RefusedPickleError(f"containers are nested deeper than {MAX_DEPTH}")


def _text(value: str) -> str:
    """Raises for half characters, which no file or terminal can hold."""
    if len(value) > MAX_TEXT:
        raise RefusedPickleError(f"a text of {len(value):,} characters")
    value.encode()
    return value

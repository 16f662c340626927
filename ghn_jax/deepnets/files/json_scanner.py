"""Walks through a large JSON file in bounded memory; what is not asked for is passed over and forgotten."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_SPACE = re.compile(r"[ \t\r\n]*")
_WINDOW = 2**20
_LONGEST_VALUE = 2**22
"""Bytes of a value that is taken as a whole: a network's entry, a table."""
_MOST_MEMBERS = 1_000
_MOST_ITEMS = 10**7


def parse_json(text: bytes) -> Any:
    """The value of a JSON text in UTF-8, which must be all of it.

    Raises:
      ValueError: if it is anything else, nested too deeply, names something twice in one object, or holds NaN or an
        infinity.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


class JsonScanner:
    """Walks through JSON text.

    Attributes of a place, such as the ends of `spans`, are counted in bytes from the beginning of the file.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._text = ""  # one character a byte, whatever the encoding
        self._before = 0
        self._at = 0
        self._decoder = json.JSONDecoder()

    def value(self) -> bytes:
        """The text of the value that comes next."""
        self._skip()
        while True:
            length = self._length_of_value()
            # Numbers that end with the window may go on behind it, by up to "e+1" that cannot be seen to be one.
            if length is not None and self._at + length + 3 <= len(self._text):
                break
            if len(self._text) - self._at > _LONGEST_VALUE:
                raise ValueError(f"byte {self._place} begins no value of less than {_LONGEST_VALUE:,} bytes")
            if not self._read_on():
                if length is None:
                    raise ValueError(f"byte {self._place} begins no whole value")
                break
        text = self._text[self._at : self._at + length]
        if len(text) > _LONGEST_VALUE:
            raise ValueError(f"byte {self._place} begins no value of less than {_LONGEST_VALUE:,} bytes")
        self._at += len(text)
        return text.encode("latin-1")

    def pass_over(self) -> None:
        """Passes over the value that comes next, which may be an object or a list of any length."""
        found = self._skip()
        if found == "{":
            for _ in self.members():
                if self._skip() == "[":
                    self.pass_over()
                else:
                    self.value()
        elif found == "[":
            for _ in self.spans():
                pass
        else:
            self.value()

    def members(self) -> Iterator[str]:
        """Keys of the object that comes next; the caller takes each value before the next key."""
        self._take("{")
        if self._skip() == "}":
            self._at += 1
            return
        seen: set[str] = set()
        while True:
            key = parse_json(self.value())
            if not isinstance(key, str) or key in seen or len(seen) == _MOST_MEMBERS:
                raise ValueError(f"the key before byte {self._place} is none, stands there twice or is one too many")
            seen.add(key)
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def spans(self) -> Iterator[tuple[int, int]]:
        """First byte of each item of the list that comes next, and the one behind it."""
        self._take("[")
        if self._skip() == "]":
            self._at += 1
            return
        for _ in range(_MOST_ITEMS):
            self._skip()
            start = self._place
            self.value()
            yield start, self._place
            if self._take(",]") == "]":
                return
        raise ValueError(f"a list has more than {_MOST_ITEMS:,} items")

    def end(self) -> None:
        """Makes sure that nothing follows."""
        if found := self._skip():
            raise ValueError(f"expected the end at byte {self._place}, found {found!r}")

    @property
    def _place(self) -> int:
        return self._before + self._at

    def _length_of_value(self) -> int | None:
        """Characters of the value that begins here; None if it does not end in the window."""
        try:
            return self._decoder.raw_decode(self._text, self._at)[1] - self._at
        except RecursionError:
            raise ValueError(f"the value from byte {self._place} on is nested too deeply") from None
        except ValueError:
            return None

    def _read_on(self) -> bool:
        """Moves the window on; returns whether anything came."""
        more = self._file.read(_WINDOW)
        self._before += self._at
        self._text = self._text[self._at :] + more.decode("latin-1")
        self._at = 0
        return bool(more)

    def _skip(self) -> str:
        """Passes over blanks; returns the character that comes next, empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def _take(self, allowed: str) -> str:
        found = self._skip()
        if not found or found not in allowed:
            raise ValueError(f"expected one of {allowed!r} at byte {self._place}, found {found or 'the end'!r}")
        self._at += 1
        return found

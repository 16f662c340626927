"""Seeded damage to files and folders: the same seed makes the same damage, on every machine.

A test of a format makes one small good file and then, say, 12 damaged copies (some hundred in the slow form):

    files = damaged_copies(tmp_path / "good.h5", tmp_path / "bad", count=12, seed=0, fields=[range(0, 96)])

`guard.read_all` then reads them. Damage that means something in one format only (a link to itself, a huge declared
size) is made by the test of that format and goes through `guard.read_all` all the same.
"""

import pathlib
import random
import shutil
from collections.abc import Callable, Sequence

Damage = Callable[[random.Random, bytes], bytes]

_NUMBERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""What is written over size fields."""


def _place(rng: random.Random, data: bytes, longest: int = 4096) -> tuple[int, int]:
    """Begin and end of a range of the data, of at least one byte; short ones are as likely as long ones."""
    length = min(len(data), int(2 ** rng.uniform(0, longest.bit_length() - 1)))
    begin = rng.randrange(len(data) - length + 1)
    return begin, begin + length


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """Turns one to eight bits over."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    """Loses the end, as a copy does that was interrupted; often only the last few bytes."""
    return data[: rng.choice((rng.randrange(len(data)), max(0, len(data) - rng.randrange(1, 64))))]


def zero(rng: random.Random, data: bytes) -> bytes:
    """A range reads as zeros, as after a loss of power."""
    begin, end = _place(rng, data)
    return data[:begin] + bytes(end - begin) + data[end:]


def noise(rng: random.Random, data: bytes) -> bytes:
    """A range holds random bytes."""
    begin, end = _place(rng, data)
    return data[:begin] + rng.randbytes(end - begin) + data[end:]


def swap(rng: random.Random, data: bytes) -> bytes:
    """Two ranges of the same length change places."""
    length = min(len(data) // 2, int(2 ** rng.uniform(0, 12)))
    first = rng.randrange(len(data) - 2 * length + 1)
    second = rng.randrange(first + length, len(data) - length + 1)
    middle = data[first + length : second]
    parts = data[:first], data[second : second + length], middle, data[first : first + length], data[second + length :]
    return b"".join(parts)


def duplicate(rng: random.Random, data: bytes) -> bytes:
    """A range stands there twice, and what follows has moved."""
    begin, end = _place(rng, data)
    return data[:end] + data[begin:]


def insert(rng: random.Random, data: bytes) -> bytes:
    """Foreign bytes in between."""
    begin, end = _place(rng, data)
    return data[:begin] + rng.randbytes(end - begin) + data[begin:]


def remove(rng: random.Random, data: bytes) -> bytes:
    """A range is missing in between."""
    begin, end = _place(rng, data)
    return data[:begin] + data[end:]


def _field(fields: Sequence[range]) -> Damage:
    """Writes an extreme number of 1, 2, 4 or 8 bytes into one of the given ranges."""

    def change(rng: random.Random, data: bytes) -> bytes:
        width = min(rng.choice((1, 2, 4, 8)), len(data))
        field = rng.choice(fields)
        begin = min(rng.randrange(field.start, field.stop), len(data) - width)
        number = (rng.choice(_NUMBERS) % 256**width).to_bytes(width, rng.choice(("little", "little", "big")))
        return data[:begin] + number + data[begin + width :]

    return change


def damaged(data: bytes, rng: random.Random, fields: Sequence[range] = ()) -> tuple[str, bytes]:
    """The kind of damage and the damaged bytes, which are never those that came.

    Args:
      data: at least two bytes.
      rng: decides everything.
      fields: byte ranges of headers, which get extreme numbers; the first 256 bytes if there are none.
    """
    if len(data) < 2:
        raise ValueError("less than two bytes cannot be damaged in every way")
    kinds: dict[str, Damage] = {
        kind.__name__: kind for kind in (flip_bits, cut, zero, noise, swap, duplicate, insert, remove)
    }
    kinds["field"] = _field(fields or [range(min(256, len(data)))])
    while True:
        name = rng.choice(list(kinds))
        changed = kinds[name](rng, data)
        if changed != data:
            return name, changed


def damaged_copies(
    good: pathlib.Path, into: pathlib.Path, count: int, seed: int, fields: Sequence[range] = ()
) -> list[pathlib.Path]:
    """Writes damaged copies of a file, or of a folder with one file of it damaged, exchanged, emptied or lost.

    Args:
      good: the undamaged one.
      into: folder of the copies, made here; a name says number and damage and ends as the good one's does.
      count: how many.
      seed: of the damage.
      fields: as in `damaged`.
    """
    into.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    copies: list[pathlib.Path] = []
    for number in range(count):
        if good.is_file():
            name, data = damaged(good.read_bytes(), rng, fields)
            copies.append(into / f"{seed}-{number:04}-{name}{good.suffix}")
            copies[-1].write_bytes(data)
        else:
            copy = into / f"{seed}-{number:04}"
            shutil.copytree(good, copy)
            copies.append(copy.rename(f"{copy}-{_damage_one_file(copy, rng, fields)}"))
    return copies


def _damage_one_file(folder: pathlib.Path, rng: random.Random, fields: Sequence[range]) -> str:
    """Does something to one file of a folder; returns what. Larger files are as likely as small ones.

    Files are told apart by their sizes first, since some writers give them random names.
    """
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.stat().st_size, path))
    file = rng.choice(files)
    data = file.read_bytes()
    others = [other for other in files if other.read_bytes() != data]
    action = rng.choice(("damage",) * 7 + ("exchange", "empty", "lose"))
    if action == "lose" or len(data) < 2:
        file.unlink()
        return "lost"
    if action == "empty":
        file.write_bytes(b"")
        return "emptied"
    if action == "exchange" and others:
        other = rng.choice(others)
        file.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return "exchanged"
    name, changed = damaged(data, rng, fields)
    file.write_bytes(changed)
    return name

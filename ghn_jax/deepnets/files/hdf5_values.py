"""The values of a plain HDF5 dataset from the messages of its header: in one piece, or in chunks, which may be gzipped.

The structures are those of the HDF5 File Format Specification, version 3.0, IV.A.2 and III.A.1.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

DATASPACE, DATATYPE, LAYOUT, FILTERS = 0x1, 0x3, 0x8, 0xB
"""Kinds of the messages that describe values."""

UNDEFINED = 2**64 - 1
"""The address of what has none."""

Read = Callable[[int, int], bytes]
"""Bytes of the file from an address on, so many; ValueError if they are not all within it."""

_TREE = struct.Struct("<4sBBHQQ")
_TYPES = {
    np.dtype(kind): struct.pack("<BxxxIHH", 0x10, size, 0, 8 * size) for kind, size in ((np.uint8, 1), (np.uint16, 2))
}
"""The messages that say so: little-endian integers without sign and without gaps."""

_CONTIGUOUS, _CHUNKED = 1, 2
_LAYOUTS = {0: "in its header", 3: "composed of other datasets"}
_GZIP = 1
_MOST_LEVELS = 16
_MOST_CHUNKS = 4096


def tree_node(read: Read, address: int, kind: int, above: int | None, size: int) -> tuple[int, bytes, int]:
    """A node of a version 1 B-tree.

    Args:
      read: gives the bytes of the file.
      address: of the node.
      kind: 0 for groups, 1 for chunks.
      above: level of the node that refers to it, None for the root. Levels fall, so every walk down a tree ends.
      size: bytes of a node.

    Returns:
      Its level (0 at the leaves); keys and addresses in turn, beginning with a key; the number of addresses.
    """
    node = read(address, size)
    signature, found, level, used, _, _ = _TREE.unpack_from(node)
    fits = level <= _MOST_LEVELS if above is None else level == above - 1
    if signature != b"TREE" or found != kind or not fits:
        raise ValueError("cannot be found: the tree that leads to it is damaged")
    return level, node[_TREE.size :], used


def tree_size(fanout: int, key_bytes: int) -> int:
    """Bytes of a B-tree's node: one key more than its 2 x `fanout` addresses."""
    return _TREE.size + 2 * fanout * (key_bytes + 8) + key_bytes


def read_values(
    read: Read, messages: Mapping[int, bytes], dtype: np.dtype[np.unsignedinteger], rank: int, most_values: int
) -> np.ndarray:
    """The values of a dataset of a given type and number of axes.

    Raises:
      ValueError: if it is damaged, of another kind, or has more than `most_values` values; says so in words that
        follow the dataset's name.
      struct.error, zlib.error: if it is damaged.
    """
    if messages[DATATYPE][:12] != _TYPES[dtype]:
        raise ValueError(f"is not of type {dtype}")
    version, found_rank, flags = struct.unpack_from("<BBB", messages[DATASPACE])
    if version != 1 or found_rank != rank or flags > 1:
        raise ValueError(f"has not {rank} axes")
    shape = struct.unpack_from(f"<{rank}Q", messages[DATASPACE], 8)
    if math.prod(shape) > most_values:
        raise ValueError(f"has the shape {shape}, more than the {most_values:,} values that are read")
    count = math.prod(shape) * dtype.itemsize
    version, layout = struct.unpack_from("<BB", messages[LAYOUT])
    if version == 3 and layout == _CONTIGUOUS and FILTERS not in messages:
        address, size = struct.unpack_from("<QQ", messages[LAYOUT], 2)
        if size != count or address == UNDEFINED:
            raise ValueError(f"has the shape {shape} and {0 if address == UNDEFINED else size} bytes")
        return np.frombuffer(read(address, count), dtype).reshape(shape)
    if version == 3 and layout == _CHUNKED:
        rank_and_type, address, *chunk = struct.unpack_from(f"<BQ{rank + 1}I", messages[LAYOUT], 2)
        if rank_and_type != rank + 1 or chunk.pop() != dtype.itemsize or not all(chunk):
            raise ValueError("has damaged chunks")
        chunks = math.prod(-(-length // step) for length, step in zip(shape, chunk, strict=True))
        if chunks > _MOST_CHUNKS or math.prod(chunk) > most_values:
            raise ValueError(f"is cut into {chunks} chunks of the shape {tuple(chunk)}: more than are read")
        gzipped = _is_gzipped(messages.get(FILTERS))
        return _from_chunks(_chunks(read, address, chunks, rank), read, np.empty(shape, dtype), tuple(chunk), gzipped)
    raise ValueError(f"is stored {_LAYOUTS.get(layout, 'in an unknown way')}, not plainly")


def _is_gzipped(filters: bytes | None) -> bool:
    """Raises ValueError for any other filter."""
    if filters is None:
        return False
    version, count = struct.unpack_from("<BB", filters)
    (kind,) = struct.unpack_from("<H", filters, 8)
    if version != 1 or count != 1 or kind != _GZIP:
        raise ValueError("is not plain or gzipped, but passed through another filter")
    return True


def _chunks(read: Read, root: int, count: int, rank: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Address, bytes and first index along each axis of so many chunks."""
    key = struct.Struct(f"<II{rank + 1}Q")
    waiting: list[tuple[int, int | None]] = [(root, None)]
    found = 0
    while waiting:
        address, above = waiting.pop()
        level, _, used = tree_node(read, address, 1, above, _TREE.size)
        _, data, _ = tree_node(read, address, 1, above, _TREE.size + used * (key.size + 8))
        found += used if level == 0 else 0
        if found > count or not 0 < used <= count or len(waiting) > count:
            raise ValueError("has damaged chunks")
        for at in range(0, len(data), key.size + 8):
            (child,) = struct.unpack_from("<Q", data, at + key.size)
            if level:
                waiting.append((child, level))
                continue
            size, skipped_filters, *first = key.unpack_from(data, at)
            if skipped_filters or first.pop():
                raise ValueError("has damaged chunks")
            yield child, size, tuple(first)
    if found != count:
        raise ValueError("has damaged chunks")


def _from_chunks(
    chunks: Iterator[tuple[int, int, tuple[int, ...]]],
    read: Read,
    values: np.ndarray,
    shape: tuple[int, ...],
    gzipped: bool,
) -> np.ndarray:
    """Fills an array from all its chunks, which have a shape of their own and may overhang."""
    seen: set[tuple[int, ...]] = set()
    count = math.prod(shape) * values.itemsize
    for address, size, first in chunks:
        outside = any(at >= length or at % step for at, length, step in zip(first, values.shape, shape, strict=True))
        if outside or first in seen or size > 2 * count + 1024 or (not gzipped and size != count):
            raise ValueError("has damaged chunks")
        seen.add(first)
        data = read(address, size)
        if gzipped:
            inflater = zlib.decompressobj()
            data = inflater.decompress(data, count + 1)
            if len(data) != count or not inflater.eof:
                raise ValueError("has a damaged chunk")
        part = values[tuple(slice(at, at + step) for at, step in zip(first, shape, strict=True))]
        part[...] = np.frombuffer(data, values.dtype).reshape(shape)[tuple(map(slice, part.shape))]
    return values

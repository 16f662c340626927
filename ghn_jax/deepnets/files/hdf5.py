"""Reads integer arrays from HDF5 files of the one kind that this project and the release write.

HDF5 can do far more than these files need: links to other files, data kept elsewhere, arrays composed of others,
programs as filters. The format's library follows all of it and is made for files that one trusts. Here only the
structures that plain files have are read, each within the file and within a bound, and everything else is refused. They
are those of the HDF5 File Format Specification, version 3.0: superblock 0 (II.A), groups as version 1 B-trees with
local heaps (III.A.1, III.B - D), version 1 object headers (IV.A.1.a) and, of their messages (IV.A.2), those below.
"""

import bisect
import os
import stat
import struct
import weakref
import zlib
from typing import NamedTuple

import numpy as np

from ghn_jax.deepnets.files.hdf5_values import (
    DATASPACE,
    DATATYPE,
    FILTERS,
    LAYOUT,
    UNDEFINED,
    read_values,
    tree_node,
    tree_size,
)

_SUPERBLOCK = struct.Struct("<8sBBBxBBBxHHIQQQQ QQI4x16x")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = struct.Struct("<4sB3xQQQ")
_LEAF = struct.Struct("<4sBxH")
_ENTRY = struct.Struct("<QQI20x")
_HEADER = struct.Struct("<BxHII4x")
_MESSAGE = struct.Struct("<HHB3x")

_CONTINUATION, _GROUP = 0x10, 0x11
_READ = (DATASPACE, DATATYPE, LAYOUT, FILTERS, _GROUP)
_PASSED_OVER = (0x0, 0x4, 0x5, 0xC, 0xD, 0xE, 0x12, 0x16)
"""Messages that say nothing of the values: padding, fill values, attributes, comments, times, counts of links."""
_REFUSED = {0x2: "links of a newer kind", 0x6: "links of a newer kind", 0x7: "values kept in other files"}
_MOST_HEAP_BYTES = 2**26
_MOST_HEADER_BYTES = 2**16
_MOST_BLOCKS = 16
_MOST_FANOUT = 1024
_MOST_NAME_BYTES = 256


def open_regular(path: str | os.PathLike[str]) -> int:
    """Opens a file to read from: its descriptor.

    Raises:
      ValueError: naming it if it cannot be opened or is a pipe, a folder or a device.
    """
    try:
        # A pipe without a writer would hold up the opening itself.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: cannot be read ({error})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{os.fspath(path)}: is no regular file")
    return descriptor


class _Group(NamedTuple):
    """Where the members of a group stand: address of the root of its B-tree, and the text of their names."""

    tree: int
    names: bytes


class Hdf5File:
    """An HDF5 file to read from; a context manager.

    Attributes:
      path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Raises ValueError naming the file if it is none, is not complete or not of the kind that is read here."""
        self.path = os.fspath(path)
        self._descriptor = open_regular(path)
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        try:
            self._end, self._size = _SUPERBLOCK.size, os.fstat(self._descriptor).st_size
            self._root, self._leaf_bytes, self._tree_bytes = self._superblock()
        except ValueError as error:
            self.close()
            raise ValueError(f"{self.path}: not a complete HDF5 file ({error})") from None
        self._groups: dict[str, _Group] = {}

    def __enter__(self) -> "Hdf5File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._closing()

    def array(self, place: str, dtype: type[np.unsignedinteger], rank: int, most_values: int) -> np.ndarray:
        """The values of a dataset.

        Args:
          place: its groups and its name, with slashes between them.
          dtype: `np.uint8` or `np.uint16`, which it must have.
          rank: number of axes, which it must have.
          most_values: a larger one is refused before anything of it is read.

        Raises:
          ValueError: naming file and place, if it is missing, damaged, or anything but a plain dataset.
        """
        *folders, name = place.split("/")
        try:
            address = self._member(self._group(folders), name)
            messages = {} if address is None else self._messages(address)
            if not {DATASPACE, DATATYPE, LAYOUT} <= messages.keys():
                raise ValueError("is missing" if address is None else "is no dataset")
            return read_values(self._bytes, messages, np.dtype(dtype), rank, most_values)
        except (ValueError, struct.error, zlib.error) as error:
            raise ValueError(f"{self.path}: {place!r} {error}") from None

    def _superblock(self) -> tuple[int, int, int]:
        """Address of the root group's header; sizes of leaves and of nodes of the groups' B-trees."""
        fields = _SUPERBLOCK.unpack(self._bytes(0, _SUPERBLOCK.size))
        signature, *versions = fields[:7]
        leaf, internal, flags, base, _, end, driver, _, root, _ = fields[7:]
        if signature != _SIGNATURE:
            raise ValueError("its signature is missing")
        if versions != [0, 0, 0, 0, 8, 8] or flags or base or driver != UNDEFINED:
            raise ValueError("its first block is not of the version that these data sets have, or damaged")
        if not (1 <= leaf <= _MOST_FANOUT and 1 <= internal <= _MOST_FANOUT):
            raise ValueError("its first block is damaged")
        if end > self._size:
            raise ValueError(f"it should have {end} bytes and has {self._size}")
        self._end = end
        return root, _LEAF.size + 2 * leaf * _ENTRY.size, tree_size(internal, key_bytes=8)

    def _bytes(self, address: int, count: int) -> bytes:
        """Bytes of the file; callers bound `count`."""
        if address + count > self._end:
            raise ValueError("refers to bytes behind the end of the file")
        try:
            data = os.pread(self._descriptor, count, address)
        except OSError as error:
            raise ValueError(f"cannot be read ({error})") from error
        if len(data) != count:
            raise ValueError("is cut off")
        return data

    def _messages(self, address: int) -> dict[int, bytes]:
        """Contents of an object's header by kind."""
        version, count, _, size = _HEADER.unpack(self._bytes(address, _HEADER.size))
        if version != 1:
            raise ValueError("has a damaged header, or one of a newer kind")
        blocks = [(address + _HEADER.size, size)]
        found: dict[int, bytes] = {}
        for place, length in blocks:  # grows
            if length > _MOST_HEADER_BYTES or len(blocks) > _MOST_BLOCKS:
                raise ValueError("has a damaged header")
            block = self._bytes(place, length)
            at = 0
            while count and at + _MESSAGE.size <= length:
                kind, size, flags = _MESSAGE.unpack_from(block, at)
                at += _MESSAGE.size + size
                count -= 1
                if at > length or kind in found:
                    raise ValueError("has a damaged header")
                if kind in _PASSED_OVER:
                    continue
                body = block[at - size : at]
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", body))
                elif kind in _READ and not flags & 2:
                    found[kind] = body
                else:
                    raise ValueError(f"has {_REFUSED.get(kind, 'a damaged header, or one of a newer kind')}")
        if count:
            raise ValueError("has a damaged header")
        return found

    def _group(self, folders: list[str]) -> _Group:
        """The group under the names of `folders`; the groups of splits, which hold all networks, are kept."""
        place = "/".join(folders)
        if place in self._groups:
            return self._groups[place]
        address = self._member(self._group(folders[:-1]), folders[-1]) if folders else self._root
        if address is None:
            raise ValueError("is missing")
        messages = self._messages(address)
        if messages.keys() != {_GROUP}:
            raise ValueError(f"is missing: {place!r} is no group")
        tree, heap = struct.unpack_from("<QQ", messages[_GROUP])
        signature, version, size, _, names = _HEAP.unpack(self._bytes(heap, _HEAP.size))
        if signature != b"HEAP" or version or size > _MOST_HEAP_BYTES:
            raise ValueError(f"cannot be found: the names in group {place!r} are damaged")
        group = _Group(tree, self._bytes(names, size))
        if len(folders) < 2:
            self._groups[place] = group
        return group

    def _member(self, group: _Group, name: str) -> int | None:
        """Address of the header of a group's member, if there is one of that name."""

        def name_at(offset: int) -> bytes:
            end = group.names.find(b"\0", offset, offset + _MOST_NAME_BYTES)
            if end < 0:
                raise ValueError("cannot be found: a name in its group is damaged")
            return group.names[offset:end]

        wanted = name.encode()
        address, level = group.tree, None
        while level != 0:
            level, data, used = tree_node(self._bytes, address, 0, level, self._tree_bytes)
            numbers = struct.unpack_from(f"<{2 * used + 1}Q", data)
            place = bisect.bisect_left(numbers[2::2], wanted, key=name_at)
            if place == used:
                return None
            address = numbers[2 * place + 1]
        leaf = self._bytes(address, self._leaf_bytes)
        signature, version, count = _LEAF.unpack_from(leaf)
        if signature != b"SNOD" or version != 1 or _LEAF.size + count * _ENTRY.size > len(leaf):
            raise ValueError("cannot be found: a list of names in its group is damaged")
        for at in range(_LEAF.size, _LEAF.size + count * _ENTRY.size, _ENTRY.size):
            offset, header, cache = _ENTRY.unpack_from(leaf, at)
            if name_at(offset) == wanted:
                if cache > 1:
                    raise ValueError(f"is behind a link ({name!r})")
                return header
        return None

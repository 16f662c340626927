"""Files and zip archives that are not believed: sizes are compared with what is there before anything is reserved."""

import contextlib
import io
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Generator, Mapping
from typing import BinaryIO, Final

MAX_LINE: Final = 1_000
"""Bytes of a line."""
MAX_DIRECTORY: Final = 1 << 22
"""Bytes of the list of members at the end of a zip: enough for some 40,000."""

_MOST_TIMES: Final = 4
_MORE_BYTES: Final = 1 << 26
"""What members unpack to, as a multiple of the file's bytes and more: weights hardly shrink, fresh ones may be 0."""


class BoundedFile:
    """A file for reading that is never asked for more than it has, nor for more than a bound at once.

    `io` reserves what it is asked for before it looks at what there is, so that a declared size of 4 GB takes 4 GB.

    Attributes:
      most: bytes that can be read at once.
      size: bytes of the whole file.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.most = most
        self._file = file
        here = file.tell()
        self.size = file.seek(0, 2)
        file.seek(here)

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or all that are left; fewer where the file ends."""
        left = max(0, self.size - self._file.tell())
        wanted = left if count < 0 else min(count, left)
        if wanted > self.most:
            raise ValueError(f"a part of {wanted:,} bytes is larger than the {self.most:,} that it may have")
        return self._file.read(wanted)

    def readline(self) -> bytes:
        """A line of at most `MAX_LINE` bytes."""
        return self._file.readline(MAX_LINE)

    def seek(self, place: int, whence: int = 0) -> int:
        """Moves, as a file's method does."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """Place in the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Always."""
        return True


class Archive:
    """Members of a zip: each name once, none encrypted, together no larger than the file that holds them."""

    def __init__(self, archive: zipfile.ZipFile, size: int, methods: Collection[int]) -> None:
        """Checks the list of members against the file's `size` in bytes and the allowed compression `methods`.

        Raises:
          ValueError: naming a member that is not as it has to be.
        """
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            if member.filename in self._members:
                raise ValueError(f"it holds {member.filename!r} twice")
            if member.compress_type not in methods:
                raise ValueError(f"{member.filename!r} is compressed in a way that such a file never is")
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename!r} is encrypted")
            if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
                raise ValueError(f"{member.filename!r} says two different sizes")
            self._members[member.filename] = member
        if sum(member.compress_size for member in self._members.values()) > size:
            raise ValueError("its members say that they are larger than the file")
        if sum(member.file_size for member in self._members.values()) > _MOST_TIMES * size + _MORE_BYTES:
            raise ValueError("its members unpack to far more than weights of its size would")

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each member by name, as the file says; `read` checks it."""
        return {name: member.file_size for name, member in self._members.items()}

    def read(self, name: str, most: int) -> bytes:
        """A whole member, its check sum verified.

        Raises:
          ValueError: if there is none of the name, or if it is damaged or larger than `most` bytes.
        """
        if name not in self._members:
            raise ValueError(f"it lacks {name!r}")
        if self._members[name].file_size > most:
            raise ValueError(f"{name!r} has {self._members[name].file_size:,} bytes, at most {most:,} are expected")
        return self._archive.read(name)


@contextlib.contextmanager
def open_archive(path: pathlib.Path, methods: Collection[int], content: bytes | None = None) -> Generator[Archive]:
    """A zip for reading whose members have all been looked at.

    Args:
      path: a regular file.
      methods: allowed ways of compression, of `zipfile`.
      content: its bytes, if they are at hand: then `path` is only a name.

    Raises:
      ValueError: for anything that is wrong with the file, also in the block; names it.
    """
    if content is None and not path.is_file():
        raise ValueError(f"{path}: no regular file")
    try:
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            bounded = BoundedFile(file, MAX_DIRECTORY)
            with zipfile.ZipFile(bounded) as archive:  # pyright: ignore[reportArgumentType]
                bounded.most = bounded.size
                yield Archive(archive, bounded.size, methods)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: not a complete zip file ({error}); get it again") from None
    except (ValueError, OverflowError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None

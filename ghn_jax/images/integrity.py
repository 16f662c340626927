"""What decoders of pictures let pass: checksums of PNG, markers of JPEG."""

import re
import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_SCAN_MARKER = re.compile(rb"\xff+[^\x00\xff]")
"""The next marker in entropy-coded data, in which a byte of 255 is followed by a zero."""

MAX_SCANNED_PIXELS = 1 << 30
"""Pixels of a JPEG times its scans: usual progressive files have about ten scans, one of thousands takes minutes."""

_READ_AHEAD = bytes(16)
"""Decoders read up to 8 bytes ahead."""

_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
_RESTARTS = range(0xD0, 0xD8)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE)) - {0xC8}
"""Markers that a length follows: frames, tables, scans, application data, comments."""


def checked(encoded: bytes) -> bytes:
    """Checks what the format itself allows to check, without decoding: PNG and JPEG; anything else passes.

    Every chunk of a PNG has a checksum, so that any damage is found. JPEG has none: a cut, or a marker that is missing,
    unknown or out of order is found, a changed bit of the entropy-coded data in general is not.

    Args:
      encoded: the file.

    Returns:
      What a decoder is to be given, of the same pixels. Where decoders of JPEG find the end of the file instead of
      coded pixels, they make up grey ones. Without the end marker they say that data is missing: so a usual JPEG (one
      sequential scan, no restart markers) comes back with zeros in place of that marker, which good data never needs.

    Raises:
      ValueError: for a file that is not as it was written; the message says what is wrong.
    """
    if encoded.startswith(PNG_SIGNATURE):
        _check_png(encoded)
    elif encoded.startswith(JPEG_SIGNATURE):
        end = _check_jpeg(encoded)
        return encoded if end is None else encoded[:end] + _READ_AHEAD
    return encoded


def _check_png(encoded: bytes) -> None:
    data, place, kind = memoryview(encoded), len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if place + 12 > len(data):
            raise ValueError("the PNG file is cut")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise ValueError("the PNG file is cut")
        if zlib.crc32(data[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"the PNG file is damaged: checksum of its chunk {kind!r}")
        place = end


def _check_jpeg(encoded: bytes) -> int | None:
    """Where the end marker stands, if the picture is one sequential scan without restart markers."""
    place, restarts, sequential, pixels, scans = 2, False, False, 0, 0
    while True:
        marker, place = _next_marker(encoded, place)
        if marker == _END_OF_IMAGE:
            if not pixels or not scans:
                raise ValueError("the JPEG file ends before its picture")
            return place - 2 if sequential and scans == 1 and not restarts else None
        if marker not in _SEGMENTS:
            raise ValueError(f"the JPEG file is damaged: marker {marker:#x} out of place")
        if place + 2 > len(encoded):
            raise ValueError("the JPEG file is cut")
        length = struct.unpack_from(">H", encoded, place)[0]
        if length < 2 or place + length > len(encoded):
            raise ValueError("the JPEG file is cut, or the length of a segment damaged")
        if marker == _RESTART_INTERVAL:
            restarts = length == 4 and encoded[place + 2 : place + 4] != b"\0\0"
        if marker in _FRAMES and length >= 8:
            height, width = struct.unpack_from(">HH", encoded, place + 3)
            pixels, sequential = height * width, marker in _SEQUENTIAL
        place += length
        if marker == _START_OF_SCAN:
            scans += 1
            if pixels * scans > MAX_SCANNED_PIXELS:
                raise ValueError(f"it is a JPEG of {pixels:,} pixels in at least {scans} scans, which takes too long")
            place = _end_of_scan(encoded, place, restarts)


def _next_marker(encoded: bytes, place: int) -> tuple[int, int]:
    """The marker at a place, and where it ends."""
    if encoded[place : place + 1] not in (b"\xff", b""):
        raise ValueError("the JPEG file is damaged: no marker where a segment ends")
    while encoded[place : place + 1] == b"\xff":
        place += 1
    if place >= len(encoded):
        raise ValueError("the JPEG file is cut")
    return encoded[place], place + 1


def _end_of_scan(encoded: bytes, place: int, restarts: bool) -> int:
    """Where the marker after entropy-coded data stands; restart markers inside count from 0 to 7, over and over."""
    expected = 0
    while found := _SCAN_MARKER.search(encoded, place):
        marker = encoded[found.end() - 1]
        if marker not in _RESTARTS:
            return found.start()
        if not restarts or marker != _RESTARTS[expected]:
            raise ValueError("the JPEG file is damaged: a restart marker out of order")
        expected, place = (expected + 1) % 8, found.end()
    raise ValueError("the JPEG file is cut")

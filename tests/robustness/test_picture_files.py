"""Damaged pictures, prepared sets and cache entries: as good, or refused by name.

What counts: a PNG has checksums, and so have records and cache entries, so none of them may give other content. JPEG,
GIF, BMP, TIFF, WebP and PPM have none: whoever changes bits of their coded pixels makes another picture, which nobody
can tell from a good one (of JPEG, markers out of order and missing data are found). A cut file is refused in every
format; other damage may give other pixels, and only there "silent" is no fault, but counted. Cache entries are made
anew: all of them end as good.
"""

import collections
import io
import os
import pathlib
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prepared_sets import write_set
from robustness.damage import damaged_copies
from robustness.guard import Outcome, counts, faults, read_all

from ghn_jax.images import ImageSet, load_images
from ghn_jax.images.folders import FolderRecords
from ghn_jax.images.records import picture

WITHOUT_CHECKSUMS = ("jpg", "restarts.jpg", "progressive.jpg", "gif", "bmp", "tif", "webp", "ppm")
PICTURES = "GHN_JAX_TEST_PICTURES"


def read_picture(path: pathlib.Path) -> Any:
    return np.asarray(picture(FolderRecords([path], np.zeros(1, np.int32)), 0))


def read_set(path: pathlib.Path) -> Any:
    return _arrays(load_images("noise", data_dir=str(path)))


def read_with_cache(path: pathlib.Path) -> Any:
    os.environ["GHN_JAX_CACHE"] = str(path)
    return _arrays(load_images(f"folder:{os.environ[PICTURES]}", 16))


def _arrays(images: Any) -> list[np.ndarray]:
    assert isinstance(images, ImageSet)
    return [array for part in (images.train, images.val, images.test) for array in (part.images, part.labels)]


def photograph(size: int) -> Image.Image:
    """Structure and noise, so that coded pixels are most of a file."""
    rng = np.random.default_rng(0)
    waves = 90 * np.sin(np.arange(size)[:, None, None] / 9 + np.arange(size)[None, :, None] / 7 + np.arange(3))
    return Image.fromarray((128 + waves + rng.integers(-30, 30, (size, size, 3))).astype(np.uint8))


def write_picture(folder: pathlib.Path, kind: str) -> pathlib.Path:
    file = folder / f"good.{kind}"
    options: dict[str, Any] = {
        "progressive.jpg": {"progressive": True},
        "restarts.jpg": {"restart_marker_rows": 1},
    }.get(kind, {})
    photograph(64).save(file, **options)
    return file


def write_noise_set(folder: pathlib.Path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (count, 40, 40, 3)).astype(np.uint8) for count in (20, 10))
    write_set(folder / "good", "noise", {"train": (train, np.arange(20) % 3), "test": (test, np.arange(10) % 3)}, 3)
    return folder / "good"


def write_cache(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A cache that holds a folder's decoded pictures; the folder stands in an environment variable."""
    for part in ("train", "val"):
        for name in ("a", "b"):
            (folder / "pictures" / part / name).mkdir(parents=True)
            for i in range(3):
                photograph(20 + i).save(folder / "pictures" / part / name / f"{i}.png")
    monkeypatch.setenv(PICTURES, str(folder / "pictures"))
    monkeypatch.setenv("GHN_JAX_CACHE", str(folder / "cache"))
    load_images(f"folder:{folder / 'pictures'}", 16)
    return folder / "cache"


def unexplained(outcomes: Sequence[Outcome], kind: str) -> list[str]:
    """Faults, but for other pixels of uncut files of a format without checksums."""
    known = [o for o in outcomes if kind in WITHOUT_CHECKSUMS and o.kind == "silent" and "cut" not in o.file.name]
    return faults(o for o in outcomes if o not in known)


def attack(kind: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> list[Outcome]:
    """How the reading of damaged copies of one kind of file ended."""
    if kind == "cache":
        good, reader = write_cache(folder, monkeypatch), read_with_cache
    elif kind == "set":
        monkeypatch.setenv("GHN_JAX_CACHE", str(folder / "cache"))
        good, reader = write_noise_set(folder), read_set
    else:
        good, reader = write_picture(folder, kind), read_picture
    return read_all(reader, good, damaged_copies(good, folder / "bad", count, seed))


@pytest.mark.parametrize(("kind", "count"), [("png", 12), ("jpg", 12), ("set", 10), ("cache", 8)])
def test_damage_is_noticed(kind: str, count: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = attack(kind, tmp_path, monkeypatch, count, seed=0)
    assert not unexplained(outcomes, kind)
    if kind == "cache":
        assert counts(outcomes) == {"good": count}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *(("png", 150), *((kind, 100) for kind in WITHOUT_CHECKSUMS[:3]), ("set", 150), ("cache", 60)),
        *((kind, 40) for kind in WITHOUT_CHECKSUMS[3:]),
    ],
)
def test_much_damage_is_noticed(kind: str, count: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = attack(kind, tmp_path, monkeypatch, count, seed=1)
    by_damage = collections.Counter(o.file.stem.rpartition("-")[2] for o in outcomes if o.kind == "silent")
    print(f"\n{kind}: {len(outcomes)} files, {counts(outcomes)}; other pixels by damage: {dict(by_damage)}")
    assert not unexplained(outcomes, kind)


def bombs() -> dict[str, bytes]:
    """Small files that declare much, or unpack to much."""
    jpeg, webp = io.BytesIO(), io.BytesIO()
    photograph(64).save(jpeg, "JPEG", progressive=True)
    photograph(64).save(webp, "WEBP")
    frame, scan = (jpeg.getvalue().index(marker) for marker in (b"\xff\xc2", b"\xff\xda"))
    end = len(jpeg.getvalue()) - 2
    large = jpeg.getvalue()[: frame + 5] + struct.pack(">HH", 8_000, 8_000) + jpeg.getvalue()[frame + 9 : end]
    text = b"x\0\0" + zlib.compress(bytes(10**8))
    size = struct.pack(">II", 9, 9) + b"\x08\0\0\0\0"
    chunks = ((b"IHDR", size), (b"zTXt", text), (b"iCCP", text), (b"IDAT", zlib.compress(bytes(90))), (b"IEND", b""))
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    bitmap = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 10**5, 10**5, 1, 24, 0, 0, 0, 0, 0, 0)
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    return {
        "scans.jpg": large + large[scan:] * 20 + b"\xff\xd9",
        "canvas.webp": webp.getvalue()[:26] + struct.pack("<HH", 16383, 16383) + webp.getvalue()[30:],
        "text.png": b"\x89PNG\r\n\x1a\n" + b"".join(packed),
        "screen.gif": b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x02\x44\x01\0;",
        "wide.bmp": b"BM" + bitmap,
        "text.ppm": b"P2 5000 5000 65535\n" + b"1 " * 10**5,
        "digits.ppm": b"P6 99999999999999 99999999999 255\n",
    }


def test_bombs_are_refused(tmp_path: pathlib.Path) -> None:
    for name, content in bombs().items():
        (tmp_path / name).write_bytes(content)
    outcomes = read_all(read_picture, write_picture(tmp_path, "png"), [tmp_path / name for name in bombs()])
    assert counts(outcomes) == {"refused": len(bombs())}, faults(outcomes)


def test_damaged_pictures_among_good_ones_are_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path, monkeypatch)
    rng = random.Random(0)
    file = tmp_path / "pictures" / "train" / "b" / "1.png"
    whole = file.read_bytes()
    for _ in range(20):
        place = rng.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"b.1\.png: "):
            load_images(f"folder:{tmp_path / 'pictures'}", 16)

"""Every kind of picture: the right pixels, compared with Pillow's by explicit conversion, or a reason."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from ghn_jax.images import decoding, integrity
from ghn_jax.images.decoding import decoded

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 28, 3)).astype(np.uint8)
SMOOTH = np.linspace(0, 255, 20 * 28 * 3).reshape(20, 28, 3).astype(np.uint8)
WIDE = np.linspace(0, 65535, 20 * 28).reshape(20, 28).astype(np.uint16)


def encode(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(decoded(encoded))


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Exact composition, float (H, W, 3)."""
    opacity = alpha[..., None] / 255
    return colours * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_colours_come_back(kind: str) -> None:
    np.testing.assert_array_equal(pixels(encode(PIXELS, kind)), PIXELS)
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(pixels(encode(grey, kind)), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_keeps_its_upper_byte(kind: str) -> None:
    np.testing.assert_array_equal(pixels(encode(WIDE, kind)), np.repeat(WIDE[..., None] >> 8, 3, axis=2))
    as_8_bits = (PIXELS[..., 0].astype(np.uint16)) * 257  # how 8-bit levels are written with 16 bits
    np.testing.assert_array_equal(pixels(encode(as_8_bits, kind))[..., 1], PIXELS[..., 0])


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of our own, for what Pillow does not write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_colours_of_16_bits_keep_their_upper_byte() -> None:
    wide = RNG.integers(0, 65536, (5, 7, 4)).astype(">u2")
    for colour, channels in ((2, wide[..., :3]), (6, wide)):
        rows = b"".join(b"\0" + row.tobytes() for row in channels)
        upper = (channels >> 8).astype(np.uint8)
        right = upper if colour == 2 else over_white(upper[..., :3], upper[..., 3])
        np.testing.assert_allclose(pixels(png(7, 5, 16, colour, rows)).astype(float), right, atol=1)
    rows = b"".join(b"\0" + row.tobytes() for row in wide[..., 0])
    with pytest.raises(ValueError, match="transparent colour of 16 bits"):
        decoded(png(7, 5, 16, 0, rows, (b"tRNS", b"\1\2")))


def test_one_bit_is_black_or_white() -> None:
    bits = PIXELS[..., 0] > 127
    for kind in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(pixels(encode(bits, kind)), np.repeat(bits[..., None], 3, axis=2) * 255)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_are_looked_up(kind: str) -> None:
    image = Image.fromarray(PIXELS).quantize(32)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(pixels(encode(image, kind)), palette[np.asarray(image)])


def test_what_is_transparent_is_laid_over_white() -> None:
    alpha = RNG.integers(0, 256, (20, 28)).astype(np.uint8)
    alpha[:5], alpha[5:10] = 0, 255
    rgba = np.dstack([PIXELS, alpha])
    grey = PIXELS[..., 0]
    for image, colours in ((rgba, PIXELS), (np.dstack([grey, alpha]), np.repeat(grey[..., None], 3, axis=2))):
        for kind in ("PNG", "TIFF"):
            found = pixels(encode(Image.fromarray(image), kind)).astype(float)
            np.testing.assert_allclose(found, over_white(colours, alpha), atol=1)
            np.testing.assert_array_equal(found[:5], 255)
            np.testing.assert_array_equal(found[5:10], colours[5:10])
    lossless = encode(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    np.testing.assert_allclose(pixels(lossless).astype(float), over_white(PIXELS, alpha), atol=1)


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 128] + [255] * 29)])
def test_transparent_colours_of_a_palette_are_laid_over_white(transparency: int | bytes) -> None:
    image = Image.fromarray(PIXELS).quantize(32)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    alpha = np.full(256, 255)
    if isinstance(transparency, int):
        alpha[transparency] = 0
    else:
        alpha[:32] = list(transparency)
    index = np.asarray(image)
    found = pixels(encode(image, "PNG", transparency=transparency)).astype(float)
    np.testing.assert_allclose(found, over_white(palette[index], alpha[index]), atol=1)


def test_cmyk_is_multiplied_out() -> None:
    cmyk = RNG.integers(0, 256, (20, 28, 4)).astype(np.uint8)
    right = (255.0 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255
    np.testing.assert_allclose(pixels(encode(Image.fromarray(cmyk, "CMYK"), "TIFF")), right, atol=1)
    smooth = np.dstack([SMOOTH, SMOOTH[::-1, :, 0] // 2])
    jpeg = encode(Image.fromarray(smooth, "CMYK"), "JPEG", quality=100)
    stored = np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)
    np.testing.assert_allclose(stored, smooth, atol=4)  # JPEG itself
    np.testing.assert_allclose(pixels(jpeg), (255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255, atol=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_tags_are_obeyed(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(SMOOTH, kind, exif=exif.tobytes())
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(pixels(encoded), np.asarray(right))
    assert pixels(encoded).shape == ((28, 20, 3) if orientation in range(5, 9) else (20, 28, 3))


def test_metadata_that_cannot_be_read_is_no_reason_to_refuse() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(SMOOTH, "JPEG", exif=exif.tobytes())
    spoilt = encoded.replace(b"MM\0*\0\0\0\x08", b"XX\0*\0\0\0\x08", 1)
    assert spoilt != encoded
    np.testing.assert_array_equal(pixels(spoilt), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


@pytest.mark.parametrize("progressive", [False, True])
def test_real_jpeg_files_are_accepted_as_they_are(progressive: bool) -> None:
    for options in ({}, {"restart_marker_rows": 1}, {"subsampling": 2}, {"optimize": True}, {"comment": b"\xff\xd9"}):
        encoded = encode(SMOOTH, "JPEG", progressive=progressive, **options)
        right = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        np.testing.assert_array_equal(pixels(encoded), right)
        np.testing.assert_array_equal(pixels(encoded + b"appended"), right)


def spoil_png(encoded: bytes, at: int) -> bytes:
    place = encoded.index(b"IDAT") + at
    return encoded[:place] + bytes([encoded[place] ^ 1]) + encoded[place + 1 :]


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"no picture at all", "no picture of a known kind"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known kind"),
    "float": (encode(Image.fromarray(SMOOTH[..., 0].astype(np.float32)), "TIFF"), "no known range"),
    "32 bits": (encode(Image.fromarray(SMOOTH[..., 0].astype(np.int32)), "TIFF"), "no known range"),
    "flipped PNG": (spoil_png(encode(PIXELS, "PNG"), 40), "checksum of its chunk b'IDAT'"),
    "PNG without an end": (encode(PIXELS, "PNG")[:-12], "PNG file is cut"),
    "long PNG chunk": (encode(PIXELS, "PNG")[:8] + b"\xff" + encode(PIXELS, "PNG")[9:], "PNG file is cut"),
    "JPEG without an end": (encode(PIXELS, "JPEG")[:-2], "JPEG file is cut"),
    "JPEG without a picture": (b"\xff\xd8\xff\xd9", "ends before its picture"),
    "marker in a scan": (encode(PIXELS, "JPEG")[:-9] + b"\xff\x10" + encode(PIXELS, "JPEG")[-7:], "out of place"),
    "cut GIF": (encode(PIXELS, "GIF")[:-90], "cannot be decoded"),
    "cut WebP": (encode(PIXELS, "WEBP")[:-90], "cannot be decoded"),
    "cut BMP": (encode(PIXELS, "BMP")[:-90], "cannot be decoded"),
    "cut TIFF": (encode(PIXELS, "TIFF")[:-90], "cannot be decoded"),
    "bomb": (png(60_000, 2_000, 1, 0, b""), "60000 x 2000 pixels, more than"),
    "short rows": (png(100, 100, 8, 0, b"\0" * 99), "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_right_is_refused_with_a_reason(name: str) -> None:
    encoded, reason = BAD[name]
    with pytest.raises(ValueError, match=reason):
        decoded(encoded)


def test_a_jpeg_cut_anywhere_is_refused() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        encoded = encode(SMOOTH, "JPEG", **options)
        for length in range(len(encoded)):
            with pytest.raises(ValueError, match=r"it is|JPEG file|cannot be decoded"):
                decoded(encoded[:length])


def test_a_png_with_any_byte_changed_is_refused() -> None:
    encoded = encode(SMOOTH[:4, :4], "PNG")
    for place in range(len(encoded)):
        with pytest.raises(ValueError, match=r"it is|PNG file|cannot be decoded"):
            decoded(encoded[:place] + bytes([encoded[place] ^ 0x41]) + encoded[place + 1 :])


def test_a_jpeg_with_less_data_than_its_size_needs_is_refused() -> None:
    encoded = encode(PIXELS, "JPEG")
    frame = encoded.index(b"\xff\xc0")
    for height in (33, 60, 8_000, 65_000):
        with pytest.raises(ValueError, match="image file is truncated"):
            decoded(encoded[: frame + 5] + struct.pack(">H", height) + encoded[frame + 7 :])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_sizes_are_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 20 * 28 - 1)
    monkeypatch.setattr(decoding, "MAX_JPEG_PIXELS", 20 * 28)
    decoded(encode(PIXELS, "JPEG"))
    with pytest.raises(ValueError, match="pixels, more than 5"):
        decoded(encode(np.concatenate([PIXELS, PIXELS]), kind))
    if kind != "JPEG":
        with pytest.raises(ValueError, match="28 x 20 pixels, more than 559"):
            decoded(encode(PIXELS, kind))


def test_a_jpeg_of_too_many_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(SMOOTH, "JPEG", progressive=True)
    last = encoded.rindex(b"\xff\xda")
    scans = encoded.count(b"\xff\xda")
    monkeypatch.setattr(integrity, "MAX_SCANNED_PIXELS", 20 * 28 * (scans + 5))
    decoded(encoded[:-2] + encoded[last:-2] * 5 + encoded[-2:])
    with pytest.raises(ValueError, match=f"560 pixels in at least {scans + 6} scans"):
        decoded(encoded[:-2] + encoded[last:-2] * 6 + encoded[-2:])


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MANY_PIXELS", 20 * 28 - 1)
    with ThreadPoolExecutor(2) as pool:
        with decoding.large_pictures:
            large, small = (pool.submit(decoded, encode(image, "PNG")) for image in (PIXELS, PIXELS[:5]))
            assert small.result(60).size == (28, 5)
            assert not wait([large], timeout=0.2).done
        assert large.result(60).size == (28, 20)
    assert not decoding.large_pictures.locked()

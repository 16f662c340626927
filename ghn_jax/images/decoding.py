"""One encoded picture of any common kind to upright 8-bit RGB, or a reason why not.

The rule for every picture, from folders and from tensorflow-datasets alike: networks take three channels. Grey, 1-bit
and 16-bit grey pictures become three equal channels; 16-bit values keep their upper byte; palettes are looked up; CMYK
becomes (1 - C)(1 - K), (1 - M)(1 - K), (1 - Y)(1 - K); what is transparent is laid over white; an orientation tag is
obeyed; colour profiles are not applied; of several frames the first is taken.
"""

import contextlib
import io
import threading
from collections.abc import Generator

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from ghn_jax.images.integrity import checked

MAX_BYTES = 1 << 28
"""Largest encoded picture."""

MAX_JPEG_PIXELS, MAX_PIXELS = 1 << 26, 1 << 25
"""Largest pictures, about 8,000 x 8,000 as JPEG, a half of it in other formats: decoding stays below 1 GB."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})
_WIDE_GREY_MODES = frozenset({"I;16", "I;16L", "I;16B"})

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the value of its EXIF orientation tag."""

MANY_PIXELS = 1 << 22
large_pictures = threading.Lock()
"""Threads decode side by side, but of pictures of more than `MANY_PIXELS` one at a time, to bound memory."""


def decoded(encoded: bytes) -> Image.Image:
    """The picture as upright RGB, by the rule of this module.

    Args:
      encoded: a PNG, JPEG, BMP, GIF, WebP, PPM or TIFF file.

    Raises:
      ValueError: for a file that is cut, damaged, of another kind, larger than `MAX_PIXELS`, or whose numbers have no
        known range (32-bit and floating-point pixels). The message is a reason; the caller knows the file.
    """
    if not encoded:
        raise ValueError("it is empty")
    whole = checked(encoded)
    with _decoder_errors():
        image = Image.open(io.BytesIO(whole), formats=_FORMATS)
    width, height = image.size
    limit = MAX_JPEG_PIXELS if isinstance(image, JpegImageFile) else MAX_PIXELS
    if width * height > limit:
        raise ValueError(f"it has {width} x {height} pixels, more than {limit:,}")
    with large_pictures if width * height > MANY_PIXELS else contextlib.nullcontext():
        return _rgb(image)


@contextlib.contextmanager
def _decoder_errors() -> Generator[None]:
    """Whatever a decoder raises for a bad file becomes a ValueError with a reason."""
    try:
        yield
    except Image.UnidentifiedImageError:
        raise ValueError(f"it is no picture of a known kind ({', '.join(_FORMATS)})") from None
    except Exception as error:  # decoders raise anything: struct.error, SyntaxError, TypeError, zlib.error, ..
        said = str(error).partition("\n")[0]
        raise ValueError(f"it cannot be decoded ({type(error).__name__}: {said})") from error


def _rgb(image: Image.Image) -> Image.Image:
    wide = _is_wide(image)
    with _decoder_errors():
        image.load()
    orientation = _orientation(image)  # after loading, which already turns a TIFF and takes its tag away
    transparent = image.has_transparency_data
    if wide and transparent and image.mode not in _ALPHA_MODES:
        raise ValueError("it has a transparent colour of 16 bits: store it with an alpha channel, or with 8 bits")
    if image.mode in _WIDE_GREY_MODES or (image.mode == "I" and image.format == "PPM"):
        image = Image.fromarray(_upper_byte(image))
    elif image.mode not in _PLAIN_MODES | _ALPHA_MODES:
        raise ValueError(f"its pixels (mode {image.mode!r}) have no known range: store it with 8 or 16 bits a channel")
    with _decoder_errors():
        if transparent:
            image = _over_white(image.convert("RGBA"))
        elif image.mode != "RGB":
            image = image.convert("RGB")
        return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int | None:
    """Value of the orientation tag; None without one, or if the metadata cannot be read: pixels may still be good."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # the parser of metadata raises anything, too
        return None


def _is_wide(image: Image.Image) -> bool:
    """Whether the file stores 16 bits a channel, of which colour pictures keep only the upper 8 when decoded."""
    return isinstance(image, ImageFile.ImageFile) and any(";16" in str(tile[3]) for tile in image.tile)


def _upper_byte(image: Image.Image) -> np.ndarray:
    """Upper bytes (H, W) of 16-bit grey levels."""
    if image.format == "TIFF":
        bits, photometric = (image.getexif().get(tag) for tag in (258, 262))
        if bits not in (16, (16,)) or photometric != 1:
            raise ValueError("its grey levels are not 16 bits from black to white: store it as PNG")
    levels = np.asarray(image)
    return (levels >> 8).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    """An RGBA picture laid over white."""
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white

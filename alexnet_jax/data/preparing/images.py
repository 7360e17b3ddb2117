"""Image files of any source: odd files become RGB squares, broken and hostile files a reason of one line."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from alexnet_jax.data import geometry
from alexnet_jax.errors import words_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # by content: ImageNet has a PNG that is named .JPEG
MAX_BYTES = 256 * 2**20  # of a file; the largest of ImageNet has 15 MB
MAX_PIXELS = 89_478_485  # as decoded; Pillow's limit: a quarter of a gigabyte of RGB
HIGHEST = "highest"  # in the `info` of a square: the highest value of an image of 16 bits
# C2/make-data/pyext/include/pyext.h:26. That of 2012 is not on record; the name of a folder suggests 85
# (A/fix-big-imgnet.py:7). Pillow halves the resolution of colour, as OpenCV does there.
JPEG_QUALITY = 95

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Markers of a JPEG: frames, tables with application data and comments, the scan.
SEQUENTIAL_FRAMES = (0xC0, 0xC1)
SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
SCAN = 0xDA
# Kinds of pictures that are not decoded, by their first bytes.
OTHER_KINDS = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"P5": "PNM",
    b"P6": "PNM",
}
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "Canon's raw"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"
)
# Files that users mistake for pictures, by their first bytes in lower case.
NO_PICTURES = {
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the picture",
    b"<!doctype html": "a web page, as a download that failed may leave it",
    b"<html": "a web page, as a download that failed may leave it",
    b"%pdf": "a PDF",
    b"pk\3\4": "a ZIP archive",
}


class BrokenImageError(ValueError):
    """The bytes hold no image that can be decoded; the message is the reason."""


def square(data: bytes, size: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in `data` upright, in RGB, the shorter side scaled to `size`, the centre cut out (paper section 2).

    Grey, CMYK, palette and 16-bit images are converted; transparent parts become white, as a page shows them. The
    `info` of the result has the highest value of a grey image of 16 bits as `HIGHEST`.

    Args:
      data: the file.
      size: pixels along a side of the result.
      max_pixels: the largest image to decode. A JPEG far larger than `size` counts at the fraction of its decoding.

    Raises:
      BrokenImageError: the bytes are empty, truncated, no image, or too large to be decoded safely.
      MemoryError: there is no memory to decode the image.
    """
    if not data:
        raise BrokenImageError("empty file")
    if len(data) > MAX_BYTES:
        raise BrokenImageError(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        with _lenient(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _square(image, size, max_pixels, fractions=_has_one_scan(data))
    except (BrokenImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise BrokenImageError(_kind(data)) from None
    except Exception as error:  # decoders raise nearly anything on hostile bytes: OSError, SyntaxError, struct.error
        raise BrokenImageError(words_of(error)) from None


_lock = threading.Lock()
_threads = 0  # within `_lenient`
_lenience = contextlib.ExitStack()


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Lifts Pillow's limit, which does not know of fractions: `_square` checks the size before it decodes.

    Warnings of oddities that are mended here are silenced. Limit and warnings are the process's, not the thread's: the
    first thread changes them, and the last brings them back.
    """
    global _threads
    with _lock:
        _threads += 1
        if _threads == 1:
            _lenience.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _lenience.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if not _threads:
                _lenience.close()


def _square(image: Image.Image, size: int, max_pixels: int, *, fractions: bool) -> Image.Image:
    width, height = image.size
    # A far larger JPEG is decoded at 1/2, 1/4 or 1/8, but never below twice the wanted size: antialiasing still does
    # the last halving.
    image.draft(None, (2 * size, 2 * size))
    pixels = image.width * image.height if fractions else width * height
    if pixels > max_pixels:
        raise BrokenImageError(f"{width}x{height}: more than {max_pixels:,} pixels")
    orientation = _orientation(image)  # decodes a PNG, whose EXIF may follow the pixels
    image.load()
    small = geometry.resize_and_crop(_resizable(image), size)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    # A central square turns into a central square: turning 256x256 pixels is cheaper than turning all.
    small = small.transpose(TURNS[orientation]) if orientation in TURNS else small
    # Nothing of the source's: Pillow would store its comment in every JPEG.
    small.info = {HIGHEST: int(np.asarray(image).max())} if _has_16_bits(image) else {}
    return small


def is_too_large(reason: str) -> bool:
    """Whether an image is broken for its count of pixels alone."""
    return ": more than " in reason and reason.endswith(" pixels")


def _has_one_scan(data: bytes) -> bool:
    """Whether the data are a sequential JPEG with all colours in one scan, which libjpeg decodes a few rows at a time.

    libjpeg holds the coefficients of all pixels of other JPEGs in memory, even where it decodes at a fraction. The
    answer is False at the first oddity: libjpeg and this function must see the same markers.
    """
    components, place = None, 2  # behind the marker of the start
    while data[:2] == b"\xff\xd8" and place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in SEQUENTIAL_FRAMES:
            components = data[place + 9]
        elif marker == SCAN:
            return data[place + 4] == components
        elif marker not in SEGMENTS:
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def _kind(data: bytes) -> str:
    """The reason for data that Pillow does not identify."""
    small = data[:32].lstrip().lower()
    if thing := next((thing for start, thing in NO_PICTURES.items() if small.startswith(start)), None):
        return f"not an image but {thing}"
    kind = next((kind for start, kind in OTHER_KINDS.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        kind = BRANDS.get(data[8:12])
        if kind is None:
            return "not an image but a video"
    formats = ", ".join(FORMATS)
    return f"a picture of the kind {kind}; convert it to one of {formats}" if kind else f"not an image ({formats})"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF does not damage the pixels
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """The whole image in RGB, or in RGBA where parts are transparent; in few copies, since the image may be large."""
    if _has_16_bits(image):  # Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the image is grey with 16 bits; Pillow has 8 bits alone of other images."""
    return image.mode.startswith("I")


def as_jpeg(image: Image.Image) -> bytes:
    """The JPEG of the image that a data set holds."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()

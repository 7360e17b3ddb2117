"""Image files as they are found: odd ones become RGB squares, broken and hostile ones a one-line reason."""

import io
import warnings

import numpy as np
from PIL import Image

from alexnet_jax.data import geometry

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # by content: ImageNet has a PNG that is named .JPEG
MAX_BYTES = 256 * 2**20  # of a file; the largest of ImageNet has 15 MB
MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a gigabyte of RGB
JPEG_QUALITY = 95  # as make-data.py:40 of cuda-convnet2; Pillow then halves the resolution of colour, as OpenCV there

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


class BrokenImageError(ValueError):
    """No image can be had from these bytes; the message is the reason."""


def square(data: bytes, size: int) -> Image.Image:
    """The image in `data` upright, in RGB, its shorter side scaled to `size`, its centre cut out (paper section 2).

    Grey, CMYK, palette and 16-bit images are converted; transparent parts become white, as a page shows them.

    Raises:
      BrokenImageError: the bytes are empty, truncated, no image, or too large to be decoded safely.
    """
    if not data:
        raise BrokenImageError("empty file")
    if len(data) > MAX_BYTES:
        raise BrokenImageError(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that are mended here; sizes are checked below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _square(image, size)
    except BrokenImageError:
        raise
    except Image.UnidentifiedImageError:
        raise BrokenImageError(f"not an image ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise BrokenImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise nearly anything on hostile bytes: OSError, SyntaxError, struct.error
        raise BrokenImageError(" ".join(str(error).split()) or type(error).__name__) from None


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BrokenImageError(f"{width}x{height}: more than {MAX_PIXELS:,} pixels")
    orientation = _orientation(image)
    # A far larger JPEG is decoded at 1/2, 1/4 or 1/8, but never below twice the wanted size: antialiasing still does
    # the last halving.
    image.draft(None, (2 * size, 2 * size))
    image.load()
    small = geometry.resize_and_crop(_resizable(image), size)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    # A central square turns into a central square: turning 256x256 pixels is cheaper than turning all.
    return small.transpose(TURNS[orientation]) if orientation in TURNS else small


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing of the pixels
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """The whole image in RGB, or in RGBA where it has transparent parts; few copies, for it may be large."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def as_jpeg(image: Image.Image) -> bytes:
    """The image as the JPEG that data sets hold."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()

"""Pictures that users give: files, bytes, PIL images and arrays become squares of pixels, as data sets store them."""

import contextlib
import io
import os
from pathlib import Path
from typing import Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from alexnet_jax import paths
from alexnet_jax.data.preparing import images
from alexnet_jax.errors import UsageError, reason_of, words_of

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # of PIL images
TRANSPARENT_MODES = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}  # PNG's mode by another mode
SIXTEEN_BITS = ("PNG", "PPM")  # files whose images of the mode `I` have 16 bits


@runtime_checkable
class OpenFile(Protocol):
    """A file opened in binary mode, such as an upload."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, from where the file stands."""


Picture: TypeAlias = str | bytes | bytearray | memoryview | os.PathLike | OpenFile | Image.Image | np.ndarray


def is_open_file(picture: object) -> TypeGuard[OpenFile]:
    """Whether the object is read as a file.

    Uploads of Flask and temporary files look `read` up when asked, and from Python 3.12 on are no instances of a
    protocol.
    """
    return callable(getattr(picture, "read", None))


class NotAPictureError(UsageError):
    """A file cannot be read, or a file or an object holds no picture."""

    def __init__(self, name: str, reason: str, *, problem: str = "is no picture"):
        super().__init__(f"{paths.in_one_line(name)} {problem}: {reason}")


def read_picture(picture: Picture, size: int, *, name: str = "") -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The central square of a picture, upright, in RGB, scaled to `size` pixels a side.

    Args:
      picture: a file's name, an open file, the bytes of a file, a PIL image, or pixels `[h, w, 3]`, `[h, w, 1]` or
        `[h, w]` of `uint8`.
      size: pixels along a side.
      name: of the picture in errors; empty: that of the file, or its type.

    Raises:
      NotAPictureError: the file cannot be read, or it is no picture.
    """
    name = name or (
        str(picture) or "''" if isinstance(picture, (str, os.PathLike)) else f"this {type(picture).__name__}"
    )
    try:
        return np.asarray(images.square(bytes_of(picture), size))
    except images.BrokenImageError as error:
        if images.is_too_large(str(error)):
            raise NotAPictureError(name, f"{error}; scale it down first", problem="is too large") from error
        raise NotAPictureError(name, str(error)) from error
    except OSError as error:
        raise NotAPictureError(name, reason_of(error), problem="cannot be read") from error
    except ValueError as error:  # of a name with NUL
        raise NotAPictureError(name, words_of(error), problem="cannot be read") from error


def bytes_of(picture: Picture) -> bytes:
    """The bytes of a file that holds the picture.

    Raises:
      BrokenImageError: an object or a file is no picture.
      OSError, ValueError: a file cannot be read.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, (str, os.PathLike)):
        if not os.fspath(picture):
            raise images.BrokenImageError("the name of its file is empty")
        path = Path(paths.expand_home(os.fspath(picture)))
        if "://" in str(picture) and not path.exists():
            raise images.BrokenImageError("an address; copy the picture to this machine, and name the copy")
        if path.exists() and not path.is_file():  # the read of a device might never end
            raise images.BrokenImageError("a folder" if path.is_dir() else "not a file")
        if path.exists() and path.stat().st_size > images.MAX_BYTES:
            raise images.BrokenImageError(f"larger than {images.MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    if is_open_file(picture):
        return _bytes_of_file(picture)
    file = io.BytesIO()
    _as_image(picture).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _bytes_of_file(file: OpenFile) -> bytes:
    """The bytes of an open file, from its beginning where it can be rewound: it may have been shown before."""
    if isinstance(file, io.TextIOBase):
        raise images.BrokenImageError("a file opened as text; open it with the mode 'rb'")
    with contextlib.suppress(AttributeError, OSError):  # a pipe has no beginning
        file.seek(0)  # type: ignore[attr-defined]
    data = bytearray()
    while part := file.read(images.MAX_BYTES + 1 - len(data)):  # an unbuffered file gives a part at a time
        if not isinstance(part, bytes):
            raise images.BrokenImageError(f"its file holds {type(part).__name__}; give one that holds bytes")
        data += part
    return bytes(data)


def _as_image(picture: object) -> Image.Image:
    if isinstance(picture, Image.Image):
        try:
            picture.load()
        except Exception as error:  # Pillow has no common error
            reason = "is its file closed?" if isinstance(error, AssertionError) else words_of(error)
            raise images.BrokenImageError(f"its pixels cannot be read: {reason}") from error
        if 0 in picture.size:
            raise images.BrokenImageError(f"{picture.width} x {picture.height} pixels, as of an empty crop")
        return _for_png(picture)
    if not isinstance(picture, np.ndarray):
        raise images.BrokenImageError("give a file's name, an open file, its bytes, a PIL image or an array")
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
        raise images.BrokenImageError(f"{picture.dtype} of shape {picture.shape}; pixels are uint8 of [h, w, 3]")
    if picture.ndim == 3 and picture.shape[-1] not in (3, 4):
        raise images.BrokenImageError(f"shape {picture.shape}; pixels are [h, w, 3], channels last")
    return Image.fromarray(picture)


def _for_png(image: Image.Image) -> Image.Image:
    """The image upright, in a mode that a PNG has, with its transparency and its 16 bits, which Pillow would clip."""
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS):
        raise images.BrokenImageError(
            f"the mode {image.mode} has no fixed value for white; convert the image to 8 or 16 bits"
        )
    with contextlib.suppress(Exception):  # damaged EXIF does not damage the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16))
    if image.mode in PNG_MODES:
        return image
    return image.convert(TRANSPARENT_MODES.get(image.mode, "RGB"))

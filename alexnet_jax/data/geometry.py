"""Crops, flips and views: `uint8` pixels, `[h, w, 3]`. Worker processes import this file: no JAX."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "h w 3"]
VIEWS = {
    1: "the centre crop",
    9: "three rows of three, as for CIFAR-10 in 2011",
    10: "corners, centre and mirror images, as in the paper",
}
VIEWS_HELP = f"{'; '.join(f'{count}: {words}' for count, words in VIEWS.items())}. Their probabilities are averaged."


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` with antialiasing, then the central square (paper section 2).

    Both happen in one step, without the pixels outside of the crop: an image one pixel wide would have endless ones.
    """
    width, height = image.size
    side = min(width, height)
    if (width, height) == (size, size):
        return image
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


class Crop(NamedTuple):
    """A square to cut out of an image, or squares: then arrays of one shape.

    Attributes:
      top, left: the first pixel.
      flip: whether to mirror the square, left to right.
      angle: rotation about the centre, radians.
      factor: enlargement about the centre.
      upside_down: whether to mirror the square, top to bottom.
      transposed: whether to exchange rows and columns, before the square is mirrored.
    """

    top: Any
    left: Any
    flip: Any
    angle: Any = 0.0
    factor: Any = 1.0
    upside_down: Any = False
    transposed: Any = False


DRAWS = 5  # numbers a crop takes
SYMMETRY = 2  # the one of these that `symmetry` takes


def symmetry(
    draw: Float[Any, "*any"], symmetries: int
) -> tuple[Bool[Any, "*any"], Bool[Any, "*any"], Bool[Any, "*any"]]:
    """One of the symmetries of the square, all equally likely: mirrored left to right, top to bottom, transposed.

    Args:
      draw: uniform in [0, 1).
      symmetries: 1: none; 2: mirror images, as in 2012; 4: also upside down; 8: also transposed, all of the square's.
    """
    bits = []
    for least in (2, 4, 8):
        bits.append((draw < 0.5) & (symmetries >= least))
        draw = 2 * draw % 1
    return bits[0], bits[1], bits[2]


def random_crop(
    image_size: int,
    size: int,
    draws: Float[np.ndarray, "*any draws"],
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    symmetries: int = 2,
) -> Crop:
    """A crop for each row of draws: uniform offsets, both ends included, and one of the symmetries at random.

    A crop of 224 in 256 has 33 x 33 offsets (A/convdata_jpeg.py:238-246). 2012 had no rotation and no scaling.

    Args:
      image_size: pixels along a side of the image.
      size: of the crop.
      draws: uniform in [0, 1), `DRAWS` in a row.
      rotation: largest angle to either side, degrees.
      scale: enlargements lie from `1 / (1 + scale)` to `1 + scale`, uniform in their logarithm.
      symmetries: as in `symmetry`.
    """
    places = image_size - size + 1
    flip, upside_down, transposed = symmetry(draws[..., SYMMETRY], symmetries)
    return Crop(
        top=(draws[..., 0] * places).astype(np.int32),
        left=(draws[..., 1] * places).astype(np.int32),
        flip=flip,
        angle=np.deg2rad(rotation) * (2 * draws[..., 3] - 1),
        factor=(1 + scale) ** (2 * draws[..., 4] - 1),
        upside_down=upside_down,
        transposed=transposed,
    )


def cut(image: Pixels, crop: Crop, out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Writes the crop of an image to `out`."""
    size = out.shape[0]
    square = image[crop.top : crop.top + size, crop.left : crop.left + size]
    if crop.angle != 0 or crop.factor != 1:
        square = _rotated(image, crop, size)
    if crop.transposed:
        square = square.transpose(1, 0, 2)
    if crop.upside_down:
        square = square[::-1]
    if not crop.flip:
        out[:] = square
        return
    for channel in range(3):  # five times as fast as reversing pixels of three bytes
        out[:, :, channel] = square[:, ::-1, channel]


def _rotated(image: Pixels, crop: Crop, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The square, rotated and scaled about its centre; the image is mirrored at its border."""
    half = (size - 1) / 2
    a, b = np.cos(crop.angle) / crop.factor, np.sin(crop.angle) / crop.factor
    reach = int(np.ceil(half * (abs(a) + abs(b)))) + 1  # from the crop's centre to the farthest row or column needed
    margin = min(max(0, reach - int(half)), min(image.shape[:2]) - 1)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    # The matrix maps each pixel of the crop to a place in the source; Pillow has pixel centres at one half.
    x, y, middle = crop.left + margin + half + 0.5, crop.top + margin + half + 0.5, half + 0.5
    matrix = (a, b, x - a * middle - b * middle, -b, a, y + b * middle - a * middle)
    source = Image.fromarray(padded)
    return np.asarray(source.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def center_crop(images: UInt8[np.ndarray, "*any h w 3"], size: int) -> UInt8[np.ndarray, "*any size size 3"]:
    """The central square: offset (16, 16) for 224 in 256."""
    return views_of(images, size, 1)[..., 0, :, :, :]


def views_of(images: UInt8[Any, "*any h w 3"], size: int, views: int) -> UInt8[Any, "*any views size size 3"]:
    """Squares at fixed places, whose probabilities an evaluation averages.

    * 1 view: the centre.
    * 9 views: three rows of three, from border to border, as for CIFAR-10 at first (A/convdata_cifar.py:83-99).
    * 10 views: four corners, the centre, and their mirror images, as for ImageNet (A/convdata_jpeg.py:225-233) and,
      with the code that came with the 11 % net, for CIFAR-10 (V1/convdata.py:104-111).

    Args:
      images: of NumPy or JAX.
      size: of a view, pixels along a side.
      views: one of `VIEWS`.

    Raises:
      ValueError: `views` is another number.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1, 9 or 10, not {views}")
    numpy = images.__array_namespace__()
    bottom, right = images.shape[-3] - size, images.shape[-2] - size
    middle = (bottom // 2, right // 2)
    corners = [(top, left) for top in (0, bottom) for left in (0, right)]
    rows_of_three = [(top, left) for top in (0, middle[0], bottom) for left in (0, middle[1], right)]
    places = {1: [middle], 9: rows_of_three, 10: [*corners, middle]}[views]
    crops = numpy.stack([images[..., top : top + size, left : left + size, :] for top, left in places], axis=-4)
    return numpy.concat([crops, crops[..., ::-1, :]], axis=-4) if views == 10 else crops

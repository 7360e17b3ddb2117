"""Crops, flips and views on the host: NumPy arrays of `uint8` pixels, `[h, w, 3]`."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "h w 3"]


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` with antialiasing, then the central square (paper section 2)."""
    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def random_crop(image: Pixels, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A square at an offset drawn uniformly, both ends included.

    33 x 33 places for 224 in 256 (A/convdata_jpeg.py:238-246).
    """
    top = rng.integers(0, image.shape[0] - size, endpoint=True)
    left = rng.integers(0, image.shape[1] - size, endpoint=True)
    return image[top : top + size, left : left + size]


def jittered_crop(
    image: Pixels, size: int, rng: np.random.Generator, *, rotation: float, scale: float
) -> UInt8[np.ndarray, "size size 3"]:
    """`random_crop`, then turned and scaled about its centre; what it uncovers is the mirrored image.

    Not of 2012. With both 0 it is `random_crop`, to the byte.

    Args:
      image: a stored image.
      size: of the crop, pixels.
      rng: draws offset, angle and scale.
      rotation: largest angle, degrees, to either side.
      scale: largest enlargement or reduction: factors from `1 / (1 + scale)` to `1 + scale`, even in their logarithm.
    """
    if not rotation and not scale:
        return random_crop(image, size, rng)
    top = rng.integers(0, image.shape[0] - size, endpoint=True)
    left = rng.integers(0, image.shape[1] - size, endpoint=True)
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    factor = (1 + scale) ** rng.uniform(-1, 1)
    half = (size - 1) / 2
    reach = int(np.ceil(half * np.sqrt(2) * (1 + scale))) + 1  # from the crop's centre to the farthest pixel asked for
    margin = min(max(0, reach - int(half)), min(image.shape[:2]) - 1)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    # Pillow asks, for each pixel of the crop, where in the source it lies; its pixel centres are at one half.
    a, b = np.cos(angle) / factor, np.sin(angle) / factor
    x, y, middle = left + margin + half + 0.5, top + margin + half + 0.5, half + 0.5
    matrix = (a, b, x - a * middle - b * middle, -b, a, y + b * middle - a * middle)
    turned = Image.fromarray(padded).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def random_flip(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The mirror image with probability 1/2."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def center_crop(image: Pixels, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The central square: offset (16, 16) for 224 in 256."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def views_of(image: Pixels, size: int, views: int) -> UInt8[np.ndarray, "{views} {size} {size} 3"]:
    """1 view: the centre. 10 views: four corners, the centre, and their mirror images (A/convdata_jpeg.py:225-233)."""
    if views == 1:
        return center_crop(image, size)[None]
    if views != 10:
        raise ValueError(f"views must be 1 or 10, not {views}")
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [image[top : top + size, left : left + size] for top in (0, bottom) for left in (0, right)]
    five = np.stack([*corners, center_crop(image, size)])
    return np.concatenate([five, five[:, :, ::-1]])

"""What a network needs to know of a picture before it: classes, sizes, and the mean and scale of the pixels.

A workdir holds it beside the checkpoints, so that a trained network is of use where its data set is not.
"""

import dataclasses
import io
import operator
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, UInt8

from alexnet_jax.data.errors import DatasetError
from alexnet_jax.errors import reason_of

FILE_NAME = "preprocessing.npz"
LARGEST_PIXEL = 255.5  # of a mean, rounding included
LARGEST_SCALE = 1e6  # a run refuses pixels whose deviation is far above its inverse


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The way from a picture to the network's input.

    Attributes:
      class_names: in the order of the labels; empty for a network without a classifier.
      image_size: pixels. The shorter side of a picture is scaled to it, and the central square is cut out.
      crop_size: pixels along a side of the crops of that square.
      mean_image: subtracted from the square, pixels 0 to 255; a crop has the centre of it subtracted.
      pixel_scale: factor of each channel of the result.
      each_image: the mean and the deviation are each crop's own, as in `standardized`, and neither `mean_image` nor
        `pixel_scale` counts.
    """

    class_names: tuple[str, ...]
    image_size: int
    crop_size: int
    mean_image: Float[np.ndarray, "size size 3"]
    pixel_scale: Float[np.ndarray, "3"]
    each_image: bool = False

    @property
    def mean_crop(self) -> Float[np.ndarray, "crop crop 3"]:
        """The centre of the mean image, which is subtracted from every crop."""
        start = (self.image_size - self.crop_size) // 2
        return self.mean_image[start : start + self.crop_size, start : start + self.crop_size]

    def inputs(self, crops: UInt8[Array, "B h w 3"]) -> Float[Array, "B h w 3"]:
        """Crops as the network takes them in evaluation. Pure."""
        return self.scaled(self.centred(crops))

    def centred(self, crops: UInt8[Array, "B h w 3"]) -> Float[Array, "B h w 3"]:
        """Crops minus the centre of the mean image, whatever their offset and flip (A/convdata_jpeg.py:95, 201-211)."""
        if self.each_image:
            return standardized(crops)
        return crops.astype(jnp.float32) - jnp.asarray(self.mean_crop, jnp.float32)[None]

    def scaled(self, x: Float[Array, "B h w 3"]) -> Float[Array, "B h w 3"]:
        """Centred pixels times the scale; those of `each_image` have theirs."""
        if self.each_image:
            return x
        scale = self.pixel_scale.astype(np.float32)
        if (scale == scale[0]).all():
            return x if scale[0] == 1 else x * float(scale[0])
        return x * scale[None, None, None, :]


LEAST_CONTRAST = 4.0  # levels of 255, added to a crop's deviation: noise of a crop without contrast stays small


def standardized(crops: UInt8[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    """Crops with a mean of 0, divided by their own standard deviation over all pixels and channels plus a constant."""
    x = crops.astype(jnp.float32)
    x = x - _mean_of_each(x)
    return x / (jnp.sqrt(_mean_of_each(x * x)) + LEAST_CONTRAST)


def _mean_of_each(x: Float[Array, "B h w c"]) -> Float[Array, "B 1 1 1"]:
    """The mean of each crop. On a CPU, XLA adds rows to each other three times as fast as the numbers of a row."""
    return x.mean(axis=1, keepdims=True).mean(axis=(2, 3), keepdims=True)


def to_bytes(preprocessing: Preprocessing) -> bytes:
    """The bytes of a file that `load` reads."""
    file = io.BytesIO()
    np.savez(file, **dataclasses.asdict(preprocessing) | {"class_names": np.array(preprocessing.class_names, str)})
    return file.getvalue()


def load(file: epath.Path) -> Preprocessing:
    """The preprocessing in a file.

    Raises:
      DatasetError: the file is damaged, or cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = reason_of(error)
        raise DatasetError(f"{file} cannot be read: {reason}; make it readable, or check the storage") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            read = Preprocessing(
                class_names=_texts(arrays["class_names"]),
                image_size=operator.index(arrays["image_size"][()]),
                crop_size=operator.index(arrays["crop_size"][()]),
                mean_image=arrays["mean_image"],
                pixel_scale=arrays["pixel_scale"],
                each_image=bool(arrays["each_image"]) if "each_image" in arrays else False,  # not of earlier versions
            )
    except Exception as error:  # NumPy raises KeyError, ValueError or BadZipFile on a damaged file
        raise DatasetError(f"{file} is damaged; remove it, and the run's data set is read in its place") from error
    return check(read, str(file))


def check(preprocessing: Preprocessing, name: str) -> Preprocessing:
    """The preprocessing, if its parts fit each other.

    Args:
      preprocessing: to check.
      name: of the file, for errors.

    Raises:
      DatasetError: they do not fit.
    """
    size, mean, scale = preprocessing.image_size, preprocessing.mean_image, preprocessing.pixel_scale
    if (
        not 0 < preprocessing.crop_size <= size
        or mean.shape != (size, size, 3)
        or scale.shape != (3,)
        or not all(array.dtype.kind == "f" for array in (mean, scale))
        or not ((mean >= 0) & (mean <= LARGEST_PIXEL)).all()  # also NaN
        or not ((scale > 0) & (scale <= LARGEST_SCALE)).all()
    ):
        raise DatasetError(f"the sizes or numbers in {name} make no sense; remove it, or make it anew")
    names = preprocessing.class_names
    if not all(class_name.strip() for class_name in names) or len(set(names)) < len(names):
        raise DatasetError(f"a name of a class in {name} is empty or occurs twice; remove it, or make it anew")
    return preprocessing


def _texts(array: np.ndarray) -> tuple[str, ...]:
    """The texts in an array `[n]`.

    Raises:
      ValueError: it holds something else.
    """
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"{array.dtype} {array.shape} is no list of texts")
    return tuple(array.tolist())


def of_colour(
    class_names: Sequence[str],
    *,
    image_size: int,
    crop_size: int,
    mean: Sequence[float],
    pixel_scale: float | Sequence[float] = 1.0,
) -> Preprocessing:
    """Preprocessing with one mean for all places, as of networks that others trained.

    Args:
      class_names, image_size, crop_size: as in `Preprocessing`.
      mean: of red, green and blue, pixels 0 to 255.
      pixel_scale: of all channels, or of each.
    """
    mean_image = np.tile(np.asarray(mean, np.float32), (image_size, image_size, 1))
    scale = np.broadcast_to(np.asarray(pixel_scale, np.float32), (3,)).copy()
    return Preprocessing(tuple(class_names), image_size, crop_size, mean_image, scale)

"""What the network must know of the training pixels: their mean image and the principal directions of their colours."""

import dataclasses
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

FILE_NAME = "statistics.npz"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of a training split, in units of pixels 0 to 255.

    Attributes:
      mean_image: of every pixel; the crop subtracts its centre (A/convdata_jpeg.py:95).
      covariance: of the RGB values over all pixels of all images.
    """

    mean_image: Float[np.ndarray, "size size 3"]
    covariance: Float[np.ndarray, "3 3"]

    @property
    def channel_means(self) -> Float[np.ndarray, "3"]:
        """Of the RGB values over all pixels."""
        return self.mean_image.mean(axis=(0, 1))

    @property
    def color_directions(self) -> Float[np.ndarray, "3 3"]:
        """Eigenvectors of the covariance in rows, ascending, each times its standard deviation.

        Standard deviations, not the eigenvalues of the paper's text: A/convdata.py:41 and C2/make-data/input_meta.
        """
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        # The sign of an eigenvector is free; this one makes results equal on every machine.
        signs = np.sign(eigenvectors[np.abs(eigenvectors).argmax(axis=0), range(3)])
        return (eigenvectors * signs * np.sqrt(np.maximum(eigenvalues, 0))).T

    @property
    def pixel_std(self) -> float:
        """Root of the mean variance of the three channels."""
        return float(np.sqrt(np.trace(self.covariance) / 3))

    def crop(self, size: int) -> Float[np.ndarray, "size size 3"]:
        """The centre of the mean image."""
        start = (self.mean_image.shape[0] - size) // 2
        return self.mean_image[start : start + size, start : start + size]


def compute(images: Iterable[UInt8[np.ndarray, "size size 3"]]) -> Statistics:
    """One pass over the images; sums are exact integers, so the order of the images changes nothing."""
    count, products = 0, np.zeros((3, 3), np.int64)
    total: Any = 0
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        total = total + image.astype(np.int64)
        # Products of bytes summed over an image stay far below 2^53, so float64 (and its BLAS) is exact.
        products += (pixels.T @ pixels).astype(np.int64)
        count += 1
    if count == 0:
        raise ValueError("statistics need at least one image")
    mean_image = np.asarray(total) / count
    mean = mean_image.mean(axis=(0, 1))
    pixels_counted = count * mean_image.shape[0] * mean_image.shape[1]
    return Statistics(mean_image, products / pixels_counted - np.outer(mean, mean))


def save(statistics: Statistics, folder: epath.Path) -> None:
    """Writes `statistics.npz` into the data set's folder."""
    file = io.BytesIO()
    np.savez(file, mean_image=statistics.mean_image, covariance=statistics.covariance)
    (folder / FILE_NAME).write_bytes(file.getvalue())


def load(folder: epath.Path) -> Statistics:
    """Reads what `save` wrote."""
    with np.load(io.BytesIO((folder / FILE_NAME).read_bytes()), allow_pickle=False) as arrays:
        return Statistics(arrays["mean_image"], arrays["covariance"])

"""Statistics of the training pixels: the mean image and the principal directions of the colours."""

import dataclasses
import io

import numpy as np
from etils import epath
from jaxtyping import Float, Int64, UInt8

FILE_NAME = "statistics.npz"
LARGEST = 255  # pixel
ROUNDING = 1e-6  # below 0, of the variance of equal pixels


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of a training split, in units of pixels 0 to 255.

    Attributes:
      mean_image: mean of each pixel; its centre is subtracted from a crop (A/convdata_jpeg.py:95).
      covariance: of the RGB values over all pixels of all images.
    """

    mean_image: Float[np.ndarray, "size size 3"]
    covariance: Float[np.ndarray, "3 3"]

    @property
    def channel_means(self) -> Float[np.ndarray, "3"]:
        """Of the RGB values over all pixels."""
        return self.mean_image.mean(axis=(0, 1))

    @property
    def principal_colors(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        """Eigenvalues of the covariance, ascending, and its eigenvectors in rows."""
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        # The sign of an eigenvector is arbitrary; a positive largest component makes results equal on all machines.
        signs = np.sign(eigenvectors[np.abs(eigenvectors).argmax(axis=0), range(3)])
        return np.maximum(eigenvalues, 0), (eigenvectors * signs).T

    @property
    def color_directions(self) -> Float[np.ndarray, "3 3"]:
        """Eigenvectors of the covariance in rows, ascending, each times its standard deviation.

        Standard deviations, not the eigenvalues of the paper's text: A/convdata.py:41 and C2/make-data/input_meta.
        """
        eigenvalues, eigenvectors = self.principal_colors
        return eigenvectors * np.sqrt(eigenvalues)[:, None]

    @property
    def pixel_std(self) -> float:
        """Root of the mean variance of the three channels."""
        return float(np.sqrt(max(np.trace(self.covariance) / 3, 0)))  # rounding may leave less than 0


@dataclasses.dataclass
class Sums:
    """Exact sums over images, in whole numbers: images and parts of a data set may be added in any order.

    Attributes:
      count: images.
      total: of each pixel.
      products: of each two RGB values of a pixel.
    """

    count: int
    total: Int64[np.ndarray, "size size 3"]
    products: Int64[np.ndarray, "3 3"]

    @classmethod
    def zero(cls, size: int) -> "Sums":
        """The sums of no image."""
        return cls(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))

    def add(self, image: UInt8[np.ndarray, "size size 3"]) -> None:
        """Adds an image."""
        pixels = image.reshape(-1, 3).astype(np.float64)
        self.count += 1
        self.total += image
        # Products of bytes summed over an image stay far below 2^53, so float64 (and its BLAS) is exact.
        self.products += (pixels.T @ pixels).astype(np.int64)

    def merge(self, other: "Sums") -> None:
        """Adds the images of another part."""
        self.count += other.count
        self.total += other.total
        self.products += other.products

    def statistics(self) -> Statistics:
        """The statistics of all images added.

        Raises:
          ValueError: no image was added.
        """
        if self.count == 0:
            raise ValueError("statistics need at least one image")
        mean_image = self.total / self.count
        mean = mean_image.mean(axis=(0, 1))
        pixels = self.count * self.total.shape[0] * self.total.shape[1]
        return Statistics(mean_image, self.products / pixels - np.outer(mean, mean))


def save(statistics: Statistics, folder: epath.Path) -> None:
    """Writes `statistics.npz` into the data set's folder: arrays for `load`, and derived ones for other programs."""
    eigenvalues, eigenvectors = statistics.principal_colors
    file = io.BytesIO()
    np.savez(
        file,
        mean_image=statistics.mean_image,
        covariance=statistics.covariance,
        channel_means=statistics.channel_means,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        standard_deviations=np.sqrt(eigenvalues),
    )
    (folder / FILE_NAME).write_bytes(file.getvalue())


def load(folder: epath.Path, size: int) -> Statistics:
    """The statistics that `save` wrote.

    Args:
      folder: of the data set.
      size: pixels along a side of the images.

    Raises:
      ValueError: the numbers are not finite, of another shape, or not those of pixels. NumPy raises further kinds on a
        damaged file.
    """
    with np.load(io.BytesIO((folder / FILE_NAME).read_bytes()), allow_pickle=False) as arrays:
        fields = {"mean_image": arrays["mean_image"], "covariance": arrays["covariance"]}
    for (name, array), shape in zip(fields.items(), ((size, size, 3), (3, 3)), strict=True):
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} is no array of {shape} finite numbers")
    mean, variances = fields["mean_image"], fields["covariance"].diagonal()
    if mean.min() < 0 or mean.max() > LARGEST or variances.min() < -ROUNDING or variances.max() > LARGEST**2:
        raise ValueError(f"the statistics are not those of pixels from 0 to {LARGEST}")
    return Statistics(**fields)

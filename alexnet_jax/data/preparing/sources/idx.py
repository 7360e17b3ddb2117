"""Fashion-MNIST in IDX files, a header and then bytes (Xiao et al. 2017; Debian: `dataset-fashion-mnist`)."""

import functools
import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.errors import MissingSourceError, SourceError
from alexnet_jax.data.preparing.listing import Item, Listing
from alexnet_jax.errors import reason_of

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
MAX_BYTES = 2**28  # of an unpacked file; the largest has 47 MB
FILES = {"train": "train", "test": "t10k"}  # split: the first part of the file names


def fashion_mnist(source_dir: str) -> Listing:
    """The 60,000 + 10,000 grey images, 28x28, of `*-images-idx3-ubyte.gz` and `*-labels-idx1-ubyte.gz`.

    Raises:
      SourceError: a file is missing or damaged, or the counts of images and labels differ.
    """
    splits = {}
    for split, start in FILES.items():
        images = Path(source_dir) / f"{start}-images-idx3-ubyte.gz"
        labels = Path(source_dir) / f"{start}-labels-idx1-ubyte.gz"
        count, truth = len(read_idx(str(images), axes=3)), read_idx(str(labels), axes=1)
        if count != len(truth):
            raise SourceError(
                f"{images} holds {count:,} images and {labels} {len(truth):,} labels; download both again"
            )
        if truth.size and truth.max() >= len(CLASSES):
            raise SourceError(f"{labels} has the label {truth.max()}, and there are {len(CLASSES)} classes")
        stat = images.stat()
        splits[split] = [
            Item(f"{split}/{n:05}", int(truth[n]), str(images), n, stat.st_size, stat.st_mtime_ns) for n in range(count)
        ]
    return Listing(
        "fashion_mnist", CLASSES, splits, read_image, [], "Fashion-MNIST: grey images of clothes in ten classes"
    )


def read_image(item: Item) -> tuple[bytes, int]:
    """The image as a PNG, and its label."""
    file = io.BytesIO()
    Image.fromarray(read_idx(item.file, axes=3)[item.offset]).save(file, "PNG")
    return file.getvalue(), item.label


@functools.lru_cache(4)
def read_idx(path: str, *, axes: int) -> UInt8[np.ndarray, " count *shape"]:
    """The array in a gzipped IDX file of bytes: two zeros, 8, the number of axes, their lengths, the data.

    Args:
      path: of the file.
      axes: of the array.

    Raises:
      SourceError: the file is missing, has another form, or may not be read.
    """
    try:
        with gzip.open(path) as file:  # a damaged file may claim any length
            data = file.read(MAX_BYTES)
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
        if zeros or kind != 8 or dimensions != axes:
            raise ValueError("another header")
        if 0 in shape[1:]:
            raise ValueError("images without pixels")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except FileNotFoundError as error:
        raise MissingSourceError(f"{path} is missing; Fashion-MNIST has four files of that kind") from error
    except PermissionError as error:
        raise MissingSourceError(f"{path} cannot be read: {reason_of(error)}") from error
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise SourceError(f"{path} is no whole IDX file ({error}); download the file again") from error

"""Fashion-MNIST in its own files: IDX, a header and then bytes (Xiao et al. 2017; Debian: `dataset-fashion-mnist`)."""

import functools
import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.preparing.listing import Found, Item
from alexnet_jax.errors import UsageError

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FILES = {"train": "train", "test": "t10k"}  # split: how its files' names begin


def fashion_mnist(source_dir: str) -> Found:
    """The 60,000 + 10,000 grey images, 28x28, of `*-images-idx3-ubyte.gz` and `*-labels-idx1-ubyte.gz`.

    Raises:
      UsageError: a file is missing or damaged, or images and labels do not go together.
    """
    splits = {}
    for split, begin in FILES.items():
        images = Path(source_dir) / f"{begin}-images-idx3-ubyte.gz"
        labels = Path(source_dir) / f"{begin}-labels-idx1-ubyte.gz"
        count, own = len(read_idx(str(images))), read_idx(str(labels))
        if count != len(own):
            raise UsageError(f"{images} holds {count:,} images and {labels} {len(own):,} labels; fetch both anew")
        if own.size and own.max() >= len(CLASSES):
            raise UsageError(f"{labels} has the label {own.max()}, and there are {len(CLASSES)} classes")
        size = images.stat().st_size
        splits[split] = [Item(f"{split}/{n:05}", int(own[n]), str(images), n, size) for n in range(count)]
    return Found(
        "fashion_mnist", CLASSES, splits, read_image, [], "Fashion-MNIST: grey images of clothes in ten classes"
    )


def read_image(item: Item) -> tuple[bytes, int]:
    """The image as a PNG, and its label."""
    file = io.BytesIO()
    Image.fromarray(read_idx(item.file)[item.offset]).save(file, "PNG")
    return file.getvalue(), item.label


@functools.lru_cache(4)
def read_idx(path: str) -> UInt8[np.ndarray, "count *shape"]:
    """The array in a gzipped IDX file of bytes: two zeros, 8, the number of axes, their lengths, the data.

    Raises:
      UsageError: the file is missing or is not of that form.
    """
    try:
        data = gzip.decompress(Path(path).read_bytes())
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
        if zeros or kind != 8:
            raise ValueError("its header is another")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; --source_dir must hold the four files of Fashion-MNIST") from error
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UsageError(f"{path} is no whole IDX file ({error}); fetch it anew") from error

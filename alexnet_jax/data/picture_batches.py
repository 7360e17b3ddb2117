"""Many pictures as batches of squares, read by threads, in memory that does not grow with their number."""

import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.pictures import Picture, read_picture
from alexnet_jax.errors import UsageError

THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes and scales without Python's lock


def picture_batches(
    pictures: Picture | Iterable[Picture], *, image_size: int, batch_size: int
) -> Iterator[UInt8[np.ndarray, "b size size 3"]]:
    """Squares of pictures, as `read_picture` makes them; while the caller works on a batch, threads read the next.

    Args:
      pictures: one or several, also a generator, which is asked for two batches in advance.
      image_size: pixels along a side of the squares.
      batch_size: of all batches but the last.

    Raises:
      UsageError: there is no picture, or one of them is none.
    """
    each = iter(as_pictures(pictures))
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)

    def begin() -> list[concurrent.futures.Future]:
        batch = list(itertools.islice(each, batch_size))
        for picture in batch:
            if isinstance(picture, Image.Image):  # the same object may come twice, and no two threads may decode it
                with contextlib.suppress(Exception):  # `read_picture` meets the same error and names the picture
                    picture.load()
        return [pool.submit(read_picture, picture, image_size) for picture in batch]

    try:
        reading = begin()
        if not reading:
            raise UsageError("there is no picture; give at least one")
        while reading:
            following = begin()
            yield np.stack([future.result() for future in reading])
            reading = following
    finally:
        pool.shutdown(cancel_futures=True)


def as_pictures(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """The pictures one by one: a picture alone is one of one, and an array `[n, h, w, 3]` is n."""
    if isinstance(pictures, np.ndarray):
        return pictures if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, (str, bytes, os.PathLike)) or not isinstance(pictures, Iterable):
        return [pictures]
    return pictures

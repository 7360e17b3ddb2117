"""Many pictures as batches of squares, read by threads, in memory that does not grow with their number."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.pictures import NotAPictureError, OpenFile, Picture, bytes_of, read_picture
from alexnet_jax.data.pipeline import threads
from alexnet_jax.errors import UsageError

AHEAD, AHEAD_BYTES = 256, 64 * 2**20  # pictures that are read in advance, at most, and their squares


def picture_batches(
    pictures: Picture | Iterable[Picture], *, image_size: int, batch_size: int
) -> Iterator[UInt8[np.ndarray, "b size size 3"]]:
    """Squares of pictures, as `read_picture` makes them; while the caller works on a batch, threads read the next.

    Args:
      pictures: one or several, also a generator, which is asked for two batches in advance.
      image_size: pixels along a side of the squares.
      batch_size: of all batches but the last.

    Raises:
      UsageError: no picture is given, or a given object is no picture.
    """
    given = as_pictures(pictures)
    each = enumerate(given)
    # A generator may give one object again and again, with other pixels, such as the frames of a film.
    is_lent = not isinstance(given, (Sequence, np.ndarray))
    pool = concurrent.futures.ThreadPoolExecutor(threads())

    def begin() -> list[concurrent.futures.Future]:
        return [
            pool.submit(read_picture, _ready(picture, is_lent), image_size, name=_name_of(picture, number))
            for number, picture in itertools.islice(each, batch_size)
        ]

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


def _ready(picture: Picture, is_lent: bool) -> Picture:
    """A picture for another thread."""
    if isinstance(picture, Image.Image):
        with contextlib.suppress(Exception):  # `read_picture` meets the same error and names the picture
            picture.load()  # the same object may come twice, and no two threads may decode it
            if is_lent:
                copy = picture.copy()
                copy.format = picture.format  # which says what the numbers mean
                return copy
    elif isinstance(picture, OpenFile):  # a generator may close it, and it may come twice
        with contextlib.suppress(Exception):  # as above
            return bytes_of(picture)
    elif isinstance(picture, memoryview):
        return bytes(picture)
    elif is_lent and isinstance(picture, (np.ndarray, bytearray)):
        return picture.copy()
    return picture


def _name_of(picture: Picture, number: int) -> str:
    """The name of a picture in errors; empty: that of its file."""
    return "" if isinstance(picture, (str, os.PathLike)) else f"picture {number} ({type(picture).__name__})"


def read_ahead(
    names: Iterable[str],
    read: Callable[[str], UInt8[np.ndarray, "size size 3"]],
    broken: Callable[[NotAPictureError], None],
    *,
    size: int,
) -> Iterator[tuple[str, UInt8[np.ndarray, "size size 3"]]]:
    """Names, each with the picture that `read` gives for it: in order, and read in advance by threads.

    Args:
      names: of pictures; some are taken in advance.
      read: the picture of a name.
      broken: takes the error of a picture that cannot be read, in the place of the picture.
      size: pixels along a side of a picture.
    """
    each = iter(names)
    pool = concurrent.futures.ThreadPoolExecutor(threads())

    def begin(count: int) -> list[tuple[str, concurrent.futures.Future]]:
        return [(name, pool.submit(read, name)) for name in itertools.islice(each, count)]

    waiting = collections.deque(begin(max(2 * threads(), min(AHEAD, AHEAD_BYTES // (3 * size**2)))))
    try:
        while waiting:
            name, picture = waiting.popleft()
            waiting += begin(1)
            try:
                pixels = picture.result()
            except NotAPictureError as error:
                broken(error)
            else:
                yield name, pixels
    finally:
        pool.shutdown(cancel_futures=True)


def as_pictures(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """The pictures one by one: a picture alone is one of one, and an array `[n, h, w, 3]` is n."""
    if isinstance(pictures, np.ndarray):
        return pictures if pictures.ndim == 4 else [pictures]
    alone = (str, bytes, bytearray, memoryview, os.PathLike, OpenFile)
    return [pictures] if isinstance(pictures, alone) or not isinstance(pictures, Iterable) else pictures

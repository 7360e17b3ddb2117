"""Many pictures as batches of squares, read by threads, in memory that does not grow with their number."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from alexnet_jax.data.pictures import NotAPictureError, Picture, bytes_of, is_open_file, read_picture
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.errors import UsageError

AHEAD, AHEAD_BYTES = 256, 64 * 2**20  # pictures that are read in advance, at most, and their squares

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    # A generator may give one object again and again, with other pixels, such as the frames of a film.
    is_lent = not isinstance(given, (Sequence, np.ndarray))
    each = ((_name_of(picture, number), _ready(picture, is_lent)) for number, picture in enumerate(given))

    def read(item: tuple[str, Picture]) -> UInt8[np.ndarray, "size size 3"]:
        name, picture = item
        return read_picture(picture, image_size, name=name)

    with contextlib.closing(ahead(each, read, batch_size)) as reading:
        squares = (future.result() for _, future in reading)
        batch = list(itertools.islice(squares, batch_size))
        if not batch:
            raise UsageError("there is no picture; give at least one")
        while batch:
            yield np.stack(batch)
            batch = list(itertools.islice(squares, batch_size))


def ahead(
    items: Iterable[Item], read: Callable[[Item], Result], count: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Items in order, each with its result, which threads compute while the caller works on earlier ones.

    Args:
      items: taken `count` in advance.
      read: the result of an item.
      count: how many are computed in advance.
    """
    pool = concurrent.futures.ThreadPoolExecutor(usable_cores())
    each = ((item, pool.submit(read, item)) for item in items)
    try:
        waiting = collections.deque(itertools.islice(each, count))
        while waiting:
            first = waiting.popleft()
            waiting += itertools.islice(each, 1)
            yield first
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
    elif is_open_file(picture):  # a generator may close it, and it may come twice
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


def most_ahead(size: int) -> int:
    """How many pictures are read in advance, as squares of `size` pixels."""
    return max(2 * usable_cores(), min(AHEAD, AHEAD_BYTES // (3 * size**2)))


def read_ahead(
    names: Iterable[Item],
    read: Callable[[Item], UInt8[np.ndarray, "size size 3"]],
    broken: Callable[[NotAPictureError], None],
    *,
    size: int,
) -> Generator[tuple[Item, UInt8[np.ndarray, "size size 3"]], None, None]:
    """Names, each with the picture that `read` gives for it: in order, and read in advance by threads.

    Args:
      names: of pictures; some are taken in advance. What stands for a name will do.
      read: the picture of a name.
      broken: takes the error of a picture that cannot be read, in the place of the picture.
      size: pixels along a side of a picture.
    """
    with contextlib.closing(ahead(names, read, most_ahead(size))) as reading:
        for name, picture in reading:
            try:
                pixels = picture.result()
            except NotAPictureError as error:
                broken(error)
            else:
                yield name, pixels


def as_pictures(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """The pictures one by one: a picture alone is one of one, and an array `[n, h, w, 3]` is n."""
    if isinstance(pictures, np.ndarray):
        return pictures if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, (str, bytes, bytearray, memoryview, os.PathLike)) or is_open_file(pictures):
        return [pictures]
    return pictures if isinstance(pictures, Iterable) else [pictures]

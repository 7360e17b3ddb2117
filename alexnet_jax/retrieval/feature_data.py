"""The pictures that features are made of: a folder of pictures, or a split of a prepared data set."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

from alexnet_jax import paths
from alexnet_jax.data.errors import UnknownDatasetError
from alexnet_jax.data.filling import Source, name_of, pixels_of
from alexnet_jax.data.folder_listing import Seen
from alexnet_jax.data.picture_batches import ahead, most_ahead, read_ahead
from alexnet_jax.data.picture_files import composed, pictures_below
from alexnet_jax.data.pictures import NotAPictureError, read_picture
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.data import open_data
from alexnet_jax.retrieval.columns import as_text

NO_CLASS = -1  # the label of a picture whose class is not known
DEFAULT_SPLIT = "test"


class Picture(NamedTuple):
    """A picture, read.

    Attributes:
      name: the path below the folder, or the name in the data set.
      label: of its class, or `NO_CLASS`.
      pixels: the square that the run's data set would store.
    """

    name: str
    label: int
    pixels: UInt8[np.ndarray, "size size 3"]


class Folder:
    """The pictures below a folder. The first folder of a path is the class, where all pictures lie one level deep.

    Args:
      folder: where to look.
      known: the classes of the network. Where they contain all classes of the folder, labels are the network's;
        otherwise they count the folder's classes in alphabetical order.
      say: takes lines about the progress of a long listing, and about what is left out.

    Attributes:
      class_names: in the order of the labels.
      total: how many pictures there are, those that cannot be read included.
      broken: how many could not be read.

    Raises:
      UsageError: the folder holds no picture.
    """

    def __init__(self, folder: str, *, known: Sequence[str], say: Callable[[str], None]):
        self._folder, self._say = folder, say
        seen, folders = Seen(say), set[str]()
        self.total = 0
        for path in pictures_below(folder, seen):
            self.total += 1
            folders.add(os.path.dirname(os.path.relpath(path, folder)))
        for line in seen.lines():
            say(line)
        for path, reason in seen.unreadable:
            say(f"error: {path} cannot be read: {reason}")
        self.broken = len(seen.unreadable)
        if not self.total:
            raise UsageError(f"there is no picture in the folder {folder}")
        classes = set(map(_class_of, folders))
        if not all(name and os.sep not in name for name in folders):
            self.class_names: tuple[str, ...] = ()
        elif classes <= set(map(composed, known)):
            self.class_names = tuple(known)
        else:
            self.class_names = tuple(sorted(classes))
        self._labels = {composed(name): label for label, name in enumerate(self.class_names)}

    def read(self, size: int) -> Iterator[Picture]:
        """The pictures as squares of `size` pixels, in constant memory; those that cannot be read are named."""
        paths = pictures_below(self._folder, Seen())
        for path, pixels in read_ahead(paths, functools.partial(read_picture, size=size), self._leave_out, size=size):
            name = os.path.relpath(path, self._folder)
            yield Picture(name, self._labels.get(_class_of(os.path.dirname(name)), NO_CLASS), pixels)

    def _leave_out(self, error: NotAPictureError) -> None:
        self.broken += 1
        self._say(f"error: {error}")


def _class_of(folder: str) -> str:
    """The class of the pictures in a folder of that name, in one form of Unicode."""
    return as_text(composed(folder))


class Split:
    """The examples of a split of a prepared data set.

    Args:
      name: of the split.
      source: its examples.
      class_names: of the data set.

    Attributes:
      class_names, total, broken: as in `Folder`; `broken` is 0.
    """

    def __init__(self, name: str, source: Source, class_names: Sequence[str]):
        self._name, self._source = name, source
        self.class_names, self.total, self.broken = tuple(class_names), len(source), 0

    def read(self, size: int) -> Iterator[Picture]:
        """The pictures as squares of `size` pixels, in constant memory; stored images of another size are scaled."""
        picture = functools.partial(self._picture, size=size)
        with contextlib.closing(ahead(range(self.total), picture, most_ahead(size))) as reading:
            for _, read in reading:
                yield read.result()

    def _picture(self, number: int, size: int) -> Picture:
        stored = self._source[number]
        pixels = pixels_of(stored)
        if pixels.shape != (size, size, 3):
            pixels = read_picture(pixels, size)
        name = name_of(stored, errors="surrogateescape")
        return Picture(f"{self._name}:{number}" if name is None else name, int(stored["label"]), pixels)


class MissingSplitError(UsageError):
    """No split is named, and the data set lacks the default one."""


Pictures: TypeAlias = Folder | Split


def open_pictures(
    word: str,
    split: str | None,
    data_dir: str | None,
    *,
    known: Sequence[str],
    say: Callable[[str], None],
    named: str = "the word",
) -> Pictures:
    """The pictures that a word names: a folder where there is one of that name, otherwise a prepared data set.

    Args:
      word: the folder, or the data set, such as `elpv/160`.
      split: of the data set, in TFDS's notation; None: `test`. A folder has none.
      data_dir: folder of prepared data sets; None: TFDS's own.
      known: the classes of the network, as in `Folder`.
      say: takes lines about what is left out, or prepared.
      named: the argument or flag that holds the word.

    Raises:
      UsageError: there is neither, a split is given for a folder, or the data set has no such split.
    """
    path = paths.expand_home(word)
    if os.path.isdir(path):
        if split is not None:
            raise UsageError(
                f"{word} is a folder of pictures, and a folder has no split {split!r}; leave out the split, or name the"
                f" prepared data set with its size, {os.path.basename(os.path.abspath(path))}/SIZE"
            )
        return Folder(path, known=known, say=say)
    if os.path.lexists(path):
        raise UsageError(f"{word} is not a folder; name a folder of pictures, or a prepared data set")
    try:
        data = open_data(word, data_dir, say=say, named=named)
    except UsageError as error:
        if isinstance(error.__cause__, UnknownDatasetError):
            raise UsageError(f"there is no folder {word!r}, and {error}") from error
        raise
    if split is None and DEFAULT_SPLIT not in data.examples:
        raise MissingSplitError(
            f"{word} has no split {DEFAULT_SPLIT!r}, which is the default; name one: {' or '.join(data.examples)}"
        )
    name = DEFAULT_SPLIT if split is None else split
    return Split(name, data.split(name), data.class_names)

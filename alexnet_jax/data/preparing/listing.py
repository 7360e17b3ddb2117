"""What a builder finds: a list of images that are to become a data set, not yet opened."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple


class Item(NamedTuple):
    """One image, by the place of its bytes.

    Attributes:
      name: unique within its split; it decides the place in the data set.
      label: number of its class, or -1 where the record itself holds it.
      file: path on this machine.
      offset: of its first byte in the file, or the record's number.
      size: bytes; with the name and offset it tells whether the source has changed.
    """

    name: str
    label: int
    file: str
    offset: int
    size: int


Read = Callable[[Item], tuple[bytes, int]]  # the encoded image and its label; goes to other processes, so a function


@dataclasses.dataclass(frozen=True)
class Found:
    """A data set's source.

    Attributes:
      name: of the data set.
      class_names: in the order of the labels.
      splits: items of each split.
      read: fetches an item.
      problems: entries of the source that are no image at all: `(name, reason)`.
      description: a sentence for the data set's metadata.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Item]]
    read: Read
    problems: list[tuple[str, str]]
    description: str


def read_span(item: Item) -> tuple[bytes, int]:
    """The item's bytes: a whole small file, or a part of an archive."""
    with open(item.file, "rb") as file:
        file.seek(item.offset)
        return file.read(item.size), item.label

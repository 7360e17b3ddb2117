"""The list of images that a source makes: where the bytes of each image lie, not yet opened."""

import dataclasses
from collections.abc import Callable, Collection
from typing import NamedTuple


class Item(NamedTuple):
    """An image of a source.

    Attributes:
      name: unique within its split; decides the place in the data set.
      label: the number of its class, or -1 where the record itself holds the label.
      file: path on this machine.
      offset: the first byte in the file, or the record's number.
      size: bytes.
      modified: when the file was last modified, in nanoseconds.
    """

    name: str
    label: int
    file: str
    offset: int
    size: int
    modified: int


Read = Callable[[Item], tuple[bytes, int]]  # the encoded image and its label; pickled for other processes


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a source.

    Attributes:
      name: of the data set.
      class_names: in the order of the labels.
      splits: items of each split.
      read: reads an item.
      problems: entries of the source that are no image at all: `(name, reason)`.
      description: a sentence for the data set's metadata.
      homepage, license: of the images, for the metadata.
      ordered: the items have their final order; else a hash of the name decides an item's place.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Item]]
    read: Read
    problems: list[tuple[str, str]]
    description: str
    homepage: str | None = None
    license: str | None = None
    ordered: bool = False


def read_span(item: Item) -> tuple[bytes, int]:
    """The item's bytes, a whole small file or a part of an archive, and its label."""
    with open(item.file, "rb") as file:
        file.seek(item.offset)
        return file.read(item.size), item.label


def missing_classes(split: str, class_names: list[str], labels: Collection[int]) -> str:
    """A line on the classes of which a split has no image; empty: the split has all `labels`."""
    missing = [name for label, name in enumerate(class_names) if label not in labels]
    if not missing:
        return ""
    some = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
    return f"the split {split!r} has no image of {len(missing):,} of the {len(class_names):,} classes: {some}"

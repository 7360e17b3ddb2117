"""Tables of features: pictures through a network, with names and labels, and the nearest neighbours of each."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from alexnet_jax.data.geometry import center_crop
from alexnet_jax.data.picture_files import composed
from alexnet_jax.errors import UsageError
from alexnet_jax.retrieval import exact_search
from alexnet_jax.retrieval.columns import Names, Rows, Scratch
from alexnet_jax.retrieval.feature_data import Picture, Pictures
from alexnet_jax.trained import Trained, choose_batch_size, pad

PIXELS = 32  # side of the pictures from whose pixels codes are learnt, as in Krizhevsky and Hinton 2011
ROUNDS = 8  # times `rows_at_once` queries are searched at a time


@dataclasses.dataclass
class Table:
    """The rows of some pictures.

    Attributes:
      names, labels, features: of the pictures.
      class_names: in the order of the labels.
      pixels: of small pictures, to learn codes from; not written.
      codes: packed bits, if there are codes.
      neighbours: for each picture the rows of the nearest ones in the table that was searched.
      distances: to them.
    """

    names: Names
    labels: Rows
    features: Rows
    class_names: tuple[str, ...]
    pixels: Rows | None = None
    codes: Rows | None = None
    neighbours: Rows | None = None
    distances: Rows | None = None

    def labels_among(self, class_names: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Labels of this table as another table counts its classes; -1: the class is not known there.

        Names are the same in both of Unicode's forms: some systems store the names of folders in the other one.
        """
        places = {name: label for label, name in enumerate(class_names)}
        forms = {composed(name): label for name, label in places.items()}
        numbers = np.array([*(places.get(name, forms.get(composed(name), -1)) for name in self.class_names), -1])
        return numbers[labels]  # the label -1 takes the last

    def classes(self, labels: np.ndarray) -> list[str | None]:
        """The names of the classes of labels; None: not known."""
        return [self.class_names[label] if label >= 0 else None for label in labels.tolist()]


def compute(
    network: Trained,
    pictures: Pictures,
    layer: str,
    *,
    with_pixels: bool,
    scratch: Scratch,
    say: Callable[[str], None],
    progress: Callable[[int], None],
) -> Table:
    """The features of all pictures that can be read, a batch at a time.

    Args:
      network: the network.
      pictures: to read.
      layer: whose output the features are.
      with_pixels: keep small pictures, too.
      scratch: for the rows.
      say: takes a warning where features are NaN or infinite.
      progress: called with the number of pictures done.

    Raises:
      UsageError: no picture can be read, there is no such layer, or the disk is full.
    """
    names, labels, not_finite = Names(scratch), Rows(scratch, np.int64), Names(scratch)
    features: Rows | None = None
    left_out = pictures.broken  # folders, which `pictures.total` does not count
    pixels = Rows(scratch, np.uint8, (PIXELS, PIXELS, 3)) if with_pixels else None
    for batch, made in batches(network, pictures, layer):
        features = features or Rows(scratch, np.float32, made.shape[1:])
        features.append(made)
        names.append([picture.name for picture in batch])
        labels.append(np.array([picture.label for picture in batch]))
        if pixels is not None:
            pixels.append(np.stack([_small(picture.pixels, network.preprocessing.crop_size) for picture in batch]))
        finite = np.isfinite(made.reshape(len(made), -1)).all(axis=1)
        not_finite.append([picture.name for picture, good in zip(batch, finite, strict=True) if not good])
        progress(len(names) + pictures.broken - left_out)
    if features is None:
        raise UsageError("no picture could be read")
    if len(not_finite):
        example = not_finite.read(0, 1)[0]
        say(f"warning: the features of {len(not_finite):,} pictures hold NaN or infinity, such as those of {example}")
    return Table(names, labels, features, pictures.class_names, pixels)


def batches(network: Trained, pictures: Pictures, layer: str) -> Iterator[tuple[list[Picture], np.ndarray]]:
    """The pictures that can be read, a batch at a time, with a layer's output for them; all batches run one program.

    Raises:
      UsageError: the network has no such layer, or the storage of a data set fails.
    """
    size = choose_batch_size(pictures.total, 1)
    read = pictures.read(network.preprocessing.image_size)
    while batch := list(itertools.islice(read, size)):
        squares = pad(np.stack([picture.pixels for picture in batch]), size)
        yield batch, network.features_of(squares, layer)[: len(batch)]


def _small(square: np.ndarray, crop_size: int) -> np.ndarray:
    """The network's view of a picture, the centre crop, at the size from which codes of pixels are learnt."""
    crop = center_crop(square, crop_size)
    return np.asarray(Image.fromarray(crop).resize((PIXELS, PIXELS), Image.Resampling.BOX))


class SameClass(NamedTuple):
    """How often neighbours are of the query's class.

    Attributes:
      queries: how many have a class.
      by_place: the share of the first neighbours, of the second, and so on.
      by_chance: the share of any other item.
    """

    queries: int
    by_place: np.ndarray
    by_chance: float


def _add_to(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def find_neighbours(
    table: Table, queries: Table | None, k: int, *, scratch: Scratch, progress: Callable[[int, int], None]
) -> SameClass | None:
    """Fills in the neighbours of the queries, or those of each picture of the table among the others.

    Args:
      table: the database.
      queries: pictures to search for; None: those of the table.
      k: how many neighbours.
      scratch: for the rows.
      progress: called with the number of items searched, of how many.

    Returns:
      How often neighbours are of the query's class; None: no class is known.

    Raises:
      UsageError: there are fewer than `k` others, or a feature is NaN or infinite.
    """
    asking = queries or table
    all_neighbours, all_distances = Rows(scratch, np.int64, (k,)), Rows(scratch, np.float64, (k,))
    count, total = len(asking.names), len(table.names)
    size = ROUNDS * exact_search.rows_at_once(math.prod(table.features.shape))
    labels, same, by_chance = table.labels.read(0, total), np.zeros(k), np.zeros(0)
    sizes = np.bincount(labels[labels >= 0], minlength=len(table.class_names))
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        distances, indices = exact_search.nearest(
            asking.features.read(start, start + size),
            table.features.blocks(),
            k,
            leave_out=rows if queries is None else None,
            first_query=start,
            progress=functools.partial(_add_to, progress, start // size * total, -(-count // size) * total),
        )
        all_neighbours.append(indices)
        all_distances.append(distances)
        ours = asking.labels_among(table.class_names, asking.labels.read(start, start + size))
        same += ((labels[indices] == ours[:, None]) & (ours >= 0)[:, None]).sum(axis=0)
        others = total - (queries is None)
        by_chance = np.append(by_chance, (sizes[ours[ours >= 0]] - (queries is None)) / others)
    asking.neighbours, asking.distances = all_neighbours, all_distances
    return SameClass(len(by_chance), same / len(by_chance), float(by_chance.mean())) if len(by_chance) else None

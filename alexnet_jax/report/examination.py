"""What the figures of a trained network show of images: its predictions, its worst mistakes and nearest images."""

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from alexnet_jax.data.filling import Source, name_of, pixels_of
from alexnet_jax.data.geometry import center_crop
from alexnet_jax.drawing.neighbours import Neighbour, Query
from alexnet_jax.drawing.predictions import Answer, likeliest
from alexnet_jax.evaluation import ensemble
from alexnet_jax.evaluation.tally import Tally, predicted_classes
from alexnet_jax.retrieval import exact_search, feature_table
from alexnet_jax.retrieval.feature_data import Split
from alexnet_jax.trained import Trained

TEST_IMAGES, GUESSES = 8, 5  # figure 4, left
QUERIES, NEIGHBOURS = 5, 6  # figure 4, right
MISTAKES, MISTAKEN_GUESSES = 12, 3

MOST_CLASSES = 3000  # of a confusion matrix: with more it takes gigabytes, and nobody sees a class in the picture

Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Images:
    """A split of a data set, or a part of it.

    Attributes:
      name: of the split.
      source: its examples.
      class_names: in the order of the labels.
      crop_size: side of the centre crops that the network sees, pixels.
    """

    name: str
    source: Source
    class_names: Sequence[str]
    crop_size: int

    def title(self, index: int) -> str:
        """The name of an image: as the data set has it, else its place in the split."""
        return name_of(self.source[index]) or f"{self.name} image {index:,}"

    def square(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        """The image as stored."""
        return pixels_of(self.source[index])

    def pixels(self, index: int) -> UInt8[np.ndarray, "crop crop 3"]:
        """The image as the network sees it."""
        return center_crop(self.square(index), self.crop_size)

    def truth(self, index: int) -> str:
        """The class of the image."""
        return self.class_names[self.source[index]["label"]]

    def answer(self, index: int, log_probs: Float[np.ndarray, " classes"], most: int) -> Answer:
        """The image with its likeliest classes, at most `most`."""
        classes, probabilities = likeliest(log_probs, self.class_names, most)
        return Answer(self.title(index), self.pixels(index), classes, probabilities, self.truth(index))

    def evenly(self, most: int) -> "Images":
        """At most so many of the images, at even distances: a split may be sorted by class."""
        count = len(self.source)
        if count <= most:
            return self
        return dataclasses.replace(self, source=_Part(self.source, np.arange(most) * count // most))


class _Part:
    """Some examples of a source."""

    def __init__(self, source: Source, indices: Int[np.ndarray, " n"]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Any:
        return self._source[int(self._indices[index])]


@dataclasses.dataclass(frozen=True)
class Examined:
    """The result of a pass over all test images, centre crops.

    Attributes:
      name: of the images: the data set and the split.
      tally: sums of losses and errors.
      matrix: how many images of each true class (rows) were predicted as each class (columns); None: there are too many
        classes.
      wrong: images whose class was not predicted.
      chosen: images drawn at random, but for undefined ones.
      mistakes: the images with the highest probabilities of a wrong class, the highest first.
    """

    name: str
    tally: Tally
    matrix: Int[np.ndarray, "classes classes"] | None
    wrong: int
    chosen: Sequence[Answer]
    mistakes: Sequence[Answer]


def examine(network: Trained, images: Images, *, seed: int, progress: Progress) -> Examined:
    """Predicts every test image once.

    Args:
      network: with a classifier.
      images: the test images.
      seed: of the choice of images.
      progress: called with the number of images done.

    Raises:
      UsageError: the storage of the data set fails.
    """
    chosen = draw_indices(len(images.source), TEST_IMAGES, seed)
    tally, wrong = Tally(len(network.classes)), 0
    rows: dict[int, np.ndarray] = {}
    mistakes: list[tuple[float, int, np.ndarray]] = []
    for block, _ in ensemble.predictions([network], np.ones(1), images.source, progress=progress):
        tally.add(block.labels, block.log_probs)
        predicted = predicted_classes(block.log_probs)
        wrong += int((predicted != block.labels).sum())
        for i in np.flatnonzero(np.isin(block.examples, chosen)):
            rows[int(block.examples[i])] = block.log_probs[i]
        mistaken = np.flatnonzero((predicted != block.labels) & (predicted >= 0))
        latest = [(float(block.log_probs[i].max()), -int(block.examples[i]), block.log_probs[i]) for i in mistaken]
        mistakes = heapq.nlargest(MISTAKES, mistakes + latest, key=lambda mistake: mistake[:2])
    return Examined(
        name=images.name,
        tally=tally,
        matrix=tally.confusion() if len(network.classes) <= MOST_CLASSES else None,
        wrong=wrong,
        chosen=[images.answer(index, rows[index], GUESSES) for index in chosen if np.isfinite(rows[index]).all()],
        mistakes=[images.answer(-index, row, MISTAKEN_GUESSES) for _, index, row in mistakes],
    )


def draw_indices(count: int, most: int, seed: int) -> list[int]:
    """At most so many different indices below `count`, drawn at random, in rising order."""
    return sorted(map(int, np.random.default_rng(seed).choice(count, min(most, count), replace=False)))


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Test images and the training images nearest to them.

    Attributes:
      queries: the test images with their neighbours.
      layer: whose features were compared.
      searched: training images.
      chance: the mean share of the queries' classes among the training images searched.
    """

    queries: Sequence[Query]
    layer: str
    searched: int
    chance: float


def find(network: Trained, test: Images, train: Images, *, seed: int, progress: Progress) -> Nearest:
    """The nearest training images of some test images, by the Euclidean distance of their features.

    Args:
      network: with a classifier.
      test: the test images, of which some are drawn.
      train: the training images, all of which are read.
      seed: of the choice of test images.
      progress: called with the number of training images searched.

    Raises:
      UsageError: the storage of the data set fails.
    """
    layer, chosen = network.last_hidden_layer, draw_indices(len(test.source), QUERIES, seed + 1)
    queries = network.features_of(np.stack([test.square(index) for index in chosen]), layer)
    count = len(train.source)
    labels = np.zeros(len(network.classes), np.int64)
    blocks = _feature_blocks(network, train, layer, labels)
    distances, indices = exact_search.nearest(queries, blocks, min(NEIGHBOURS, count), progress=progress)
    shown = []
    for index, near, far in zip(chosen, indices, distances, strict=True):
        neighbours = [
            Neighbour(train.title(int(i)), train.pixels(int(i)), train.truth(int(i)), float(distance))
            for i, distance in zip(near, far, strict=True)
        ]
        shown.append(Query(test.title(index), test.pixels(index), test.truth(index), neighbours))
    chance = np.mean([labels[test.source[index]["label"]] for index in chosen]) / count
    return Nearest(shown, layer, count, float(chance))


def _feature_blocks(
    network: Trained, train: Images, layer: str, labels: Int[np.ndarray, " classes"]
) -> Iterator[Float[np.ndarray, "n ..."]]:
    """The features of the centre crops of all images, block by block; counts the images of each class in `labels`."""
    split = Split(train.name, train.source, train.class_names)
    for pictures, features in feature_table.batches(network, split, layer):
        labels += np.bincount([picture.label for picture in pictures], minlength=len(labels))
        yield features

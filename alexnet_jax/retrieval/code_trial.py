"""Learns binary codes of a table's features, and measures them on pictures that no code was learnt from."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from alexnet_jax.errors import UsageError
from alexnet_jax.retrieval import codes, exact_search, recall
from alexnet_jax.retrieval.columns import Rows, Scratch
from alexnet_jax.retrieval.feature_table import Table

HELD_OUT = 0.1  # share of the pictures that are queries, where no others are given
ENOUGH = 2  # times as many pictures as neighbours, at least: otherwise every ranking finds most of them
MOST_QUERIES = 1000
QUERY_NUMBERS = 2**26  # of the features of all queries in memory
DEEPER = 10  # the second depth of a ranking, in units of the first


class Options(NamedTuple):
    """How codes are learnt and measured.

    Attributes:
      bits: of a code.
      k: the exact nearest neighbours that the codes should find.
      seed: of the held-out pictures, of the autoencoders and of the hyperplanes.
      updates: of an autoencoder.
    """

    bits: int
    k: int
    seed: int
    updates: int


class Result(NamedTuple):
    """The quality of a ranking of the database.

    Attributes:
      name: of the ranking.
      recalls: of the exact neighbours, at each depth.
      same_class: of the query's class among the first `k`; None: the queries have no class.
    """

    name: str
    recalls: Sequence[float]
    same_class: float | None


class Trial(NamedTuple):
    """The measurement of all ways on the same queries.

    Attributes:
      queries: how many held-out pictures.
      database: how many pictures are searched.
      depths: how many of the first items of a ranking count.
      results: of each way.
    """

    queries: int
    database: int
    depths: Sequence[int]
    results: Sequence[Result]


@dataclasses.dataclass(frozen=True)
class Exact:
    """Queries and their exact nearest neighbours.

    Attributes:
      chosen: rows of the queries in their table.
      kept: rows of the database in its table.
      neighbours: places among `kept`, `[queries, k]`.
      query_labels, labels: of queries and database, counted alike.
    """

    chosen: np.ndarray
    kept: np.ndarray
    neighbours: np.ndarray
    query_labels: np.ndarray
    labels: np.ndarray

    @property
    def k(self) -> int:
        """The number of neighbours of a query."""
        return self.neighbours.shape[1]

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths of the rankings."""
        return tuple(dict.fromkeys(min(depth, len(self.kept)) for depth in (self.k, DEEPER * self.k)))

    def measure(self, name: str, encode: codes.Encode, vectors: codes.Vectors, wanted: np.ndarray) -> Result:
        """The shares that codes of these vectors find."""
        coded = map(encode, vectors.blocks())
        labels = {"query_labels": self.query_labels, "labels": self.labels}
        ranking = recall.rank(encode(wanted), coded, self.neighbours, **labels)
        return Result(name, [ranking.recall(depth) for depth in self.depths], ranking.same_class(self.k))

    def compare(self, name: str, vectors: codes.Vectors, wanted: np.ndarray) -> Result:
        """The shares that exact distances of other vectors find."""
        _, retrieved = exact_search.nearest(wanted, vectors.blocks(), self.depths[-1])
        hits = np.stack([np.isin(*rows) for rows in zip(retrieved, self.neighbours, strict=True)])
        recalls = [float(hits[:, :depth].sum(axis=1).mean() / self.k) for depth in self.depths]
        alike = self.labels[retrieved[:, : self.k]] == self.query_labels[:, None]
        return Result(name, recalls, _mean(alike[self.query_labels >= 0]))

    def bounds(self, layer: str) -> Iterator[Result]:
        """The shares of the exact ranking, and of one drawn by lot."""
        alike = self.labels[self.neighbours] == self.query_labels[:, None]
        known = self.query_labels >= 0
        yield Result(f"exact distances in {layer}", [1.0] * len(self.depths), _mean(alike[known]))
        shares = [np.mean(self.labels == label) for label in self.query_labels[known]]
        yield Result("any order", [depth / len(self.kept) for depth in self.depths], _mean(np.array(shares)))


def run(
    table: Table,
    queries: Table | None,
    options: Options,
    *,
    layer: str,
    scratch: Scratch,
    progress: Callable[[str], Callable[[int], None]],
) -> Trial:
    """Fills in the codes of the tables, and measures them beside others of the same length.

    Args:
      table: the database, with pixels. Without `queries` a share is held out of learning and of the search.
      queries: pictures to search for, with pixels; at most `MOST_QUERIES` of them are measured.
      options: of the codes.
      layer: whose features they are, for the names of the results.
      scratch: for the codes.
      progress: makes a function for the number of updates, given the name of the vectors.

    Raises:
      UsageError: there are too few pictures, or a feature is NaN or infinite.
    """
    exact = search(table, queries, options)
    asking = queries or table
    assert table.pixels is not None and asking.pixels is not None

    def learn(vectors: codes.Vectors, name: str) -> codes.Encode:
        return codes.train_autoencoder(
            vectors, options.bits, seed=options.seed, updates=options.updates, progress=progress(name)
        )

    features, pixels = vectors_of(table.features, exact.kept), vectors_of(table.pixels, exact.kept)
    wanted, wanted_pixels = _flat(asking.features.take(exact.chosen)), _flat(asking.pixels.take(exact.chosen))
    encode = learn(features, layer)
    for each in (table, queries):
        if each is not None:
            coded = Rows(scratch, np.uint8, (options.bits // 8,))
            for block in each.features.blocks():
                coded.append(encode(_flat(block)))
            each.codes = coded
    planes = codes.random_hyperplanes(codes.moments(features), options.bits, seed=options.seed)
    results = [
        exact.measure(f"autoencoder on {layer}", encode, features, wanted),
        exact.measure("autoencoder on pixels", learn(pixels, "pixels"), pixels, wanted_pixels),
        exact.measure(f"random hyperplanes in {layer}", planes, features, wanted),
        exact.compare("exact distances in pixels", pixels, wanted_pixels),
        *exact.bounds(layer),
    ]
    return Trial(len(exact.chosen), len(exact.kept), exact.depths, results)


def held_out(count: int) -> int:
    """How many of some pictures are queries, at most, where no others are given."""
    return min(MOST_QUERIES, max(1, round(HELD_OUT * count)))


def check_counts(k: int, queries: int, database: int) -> None:
    """Checks that there are pictures enough to measure codes.

    Args:
      k: as in `Options`.
      queries: held-out pictures.
      database: pictures that are searched.

    Raises:
      UsageError: there are not.
    """
    if not queries or database < ENOUGH * k:
        raise UsageError(
            f"codes are measured by the {k} nearest neighbours of held-out pictures among at least {ENOUGH * k} others,"
            f" and there are {database:,}; give more pictures, or ask for fewer neighbours",
            option="neighbours",
        )


def search(table: Table, queries: Table | None, options: Options) -> Exact:
    """Chooses queries and database by the seed, and finds the exact neighbours.

    Raises:
      UsageError: there are too few pictures, or a feature is NaN or infinite.
    """
    most = min(MOST_QUERIES, max(1, QUERY_NUMBERS // max(1, math.prod(table.features.shape))))
    rng, count = np.random.default_rng(options.seed), len(table.names)
    if queries is None:
        asking, held = table, min(most, held_out(count))
        chosen, kept = np.split(rng.permutation(count), [held])
    else:
        asking, kept = queries, np.arange(count)
        chosen = rng.permutation(len(queries.names))[:most]
    chosen, kept = np.sort(chosen), np.sort(kept)
    check_counts(options.k, len(chosen), len(kept))
    vectors = vectors_of(table.features, kept)
    _, neighbours = exact_search.nearest(_flat(asking.features.take(chosen)), vectors.blocks(), options.k)
    return Exact(
        chosen,
        kept,
        neighbours,
        asking.labels_among(table.class_names, asking.labels.take(chosen)),
        table.labels.read(0, count)[kept],
    )


def vectors_of(rows: Rows, kept: np.ndarray) -> codes.Vectors:
    """Some rows as vectors; `kept` are their numbers in rising order."""

    def blocks() -> Iterator[np.ndarray]:
        first = 0
        for block in rows.blocks():
            inside = kept[np.searchsorted(kept, first) : np.searchsorted(kept, first + len(block))]
            if len(inside):
                yield _flat(block[inside - first])
            first += len(block)

    return codes.Vectors(len(kept), lambda places: _flat(rows.take(kept[places])), blocks)


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)


def _mean(shares: np.ndarray) -> float | None:
    return float(shares.mean()) if shares.size else None

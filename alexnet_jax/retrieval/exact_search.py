"""Exact nearest neighbours by Euclidean distance, as in the right half of figure 4.

Matrix products on the device give approximate distances and a bound on their error. Every item that may be among the
nearest by that bound is measured again on the host, in float64. The result is that of a search in float64, ties too.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float64, Int, Int64, Num

from alexnet_jax.errors import UsageError

ROWS = 1024  # of queries and of the database in a product, at most
NUMBERS = 2**24  # of such rows in memory at a time: 64 MiB in float32
CHUNK = 256  # features in a product: fewer sums, smaller errors
PAIR_NUMBERS = 2**22  # float64 numbers of differences in memory at a time: 32 MiB
UNIT = 2.0**-24  # of float32: the largest relative error of an operation
SAFE = 1e17  # lengths of vectors whose squares float32 holds
TINY = 1e-30  # squares below this size lose digits in float32
NONE = np.iinfo(np.int64).max  # the index of an item not found yet


def nearest(
    queries: np.ndarray,
    database_blocks: Iterable[np.ndarray],
    k: int,
    *,
    leave_out: Int[np.ndarray, " q"] | None = None,
    first_query: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Float64[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """The `k` items of the database nearest to each query: Euclidean distances in rising order, and indices.

    Items at the same distance come in the order of their indices. The memory in use does not grow with the database.

    Args:
      queries: `[q, ...]`, numbers of any kind.
      database_blocks: `[n, ...]` each, read once. An item's index counts through all blocks.
      k: how many.
      leave_out: the index of an item that each query must not find, such as the query itself.
      first_query: the number of the first query, for errors.
      progress: called with the number of items searched.

    Raises:
      UsageError: the database has fewer than `k` items, shapes differ, or a number is NaN or infinite.
    """
    check_count(k, k)
    queries = _rows(queries, "queries", first_query)
    best = _Best(np.full((len(queries), k), np.inf), np.full((len(queries), k), NONE))
    left_out = np.full(len(queries), -1) if leave_out is None else np.asarray(leave_out)
    size = rows_at_once(queries.shape[1])
    parts = [(slice(i, i + size), _Vectors(queries[i : i + size])) for i in range(0, len(queries), size)]
    first = 0
    for block in _split(database_blocks, size):
        if block.shape[1] != queries.shape[1]:
            raise UsageError(f"queries have {queries.shape[1]:,} features and items of the database {block.shape[1]:,}")
        vectors = _Vectors(block)
        for rows, part in parts:
            _search(part, vectors, best.part(rows), left_out[rows] - first, first)
        first += len(block)
        progress(first)
    check_count(k, first - (leave_out is not None))
    return best.distances, best.indices


def check_count(k: int, items: int) -> None:
    """Checks that `k` neighbours can be found among so many items.

    Raises:
      UsageError: there are fewer, or `k` is 0 or less.
    """
    if k < 1:
        raise UsageError(f"{k} neighbours were asked for; ask for at least 1")
    if items < k:
        raise UsageError(f"{k:,} neighbours were asked for, and there are {items:,} items to search; ask for fewer")


def rows_at_once(features: int) -> int:
    """How many vectors of so many features are held in memory at a time, in a product or elsewhere."""
    return max(1, min(ROWS, NUMBERS // max(features, 1)))


class _Best:
    """The nearest items until now: distances `[q, k]` in rising order, and indices."""

    def __init__(self, distances: np.ndarray, indices: np.ndarray):
        self.distances, self.indices = distances, indices

    def part(self, rows: slice) -> "_Best":
        """The same arrays of some queries."""
        return _Best(self.distances[rows], self.indices[rows])

    def merge(self, rows: np.ndarray, distances: np.ndarray, indices: np.ndarray) -> None:
        """Takes in items, each with the row of its query."""
        k = self.distances.shape[1]
        touched = np.unique(rows)
        rows = np.concatenate([np.repeat(touched, k), rows])
        distances = np.concatenate([self.distances[touched].ravel(), distances])
        indices = np.concatenate([self.indices[touched].ravel(), indices])
        order = np.lexsort((indices, distances, rows))
        rows, distances, indices = rows[order], distances[order], indices[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # within the query's own items
        kept = place < k
        self.distances[rows[kept], place[kept]] = distances[kept]
        self.indices[rows[kept], place[kept]] = indices[kept]


class _Vectors:
    """Vectors on the host as they are, and on the device in chunks with padding: rows to a power of two."""

    def __init__(self, vectors: Num[np.ndarray, "n d"]):
        self.exact = vectors
        count, features = vectors.shape
        padded = np.zeros((1 << max(count - 1, 0).bit_length(), -(-features // CHUNK) * CHUNK), np.float32)
        with np.errstate(over="ignore"):  # then the length is beyond SAFE
            padded[:count, :features] = vectors
        lengths = np.zeros(len(padded), np.float32)
        lengths[:count] = np.minimum(np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1)), 2 * SAFE)
        self.chunks = jnp.asarray(np.moveaxis(padded.reshape(len(padded), -1, CHUNK), 1, 0))
        self.lengths = jnp.asarray(lengths)

    def __len__(self) -> int:
        return len(self.exact)


def _search(queries: _Vectors, block: _Vectors, best: _Best, left_out: np.ndarray, first: int) -> None:
    """Takes the nearest items of a block into `best`."""
    padding = len(queries.lengths) - len(queries)
    with np.errstate(over="ignore"):  # then every item is possible
        limits = np.nextafter(np.square(best.distances[:, -1]).astype(np.float32), np.float32(np.inf))
    outside = np.where((left_out >= 0) & (left_out < len(block)), left_out, -1).astype(np.int32)
    possible = _possible(
        (queries.chunks, queries.lengths),
        (block.chunks, block.lengths),
        np.pad(limits, (0, padding)),
        np.pad(outside, (0, padding), constant_values=-1),
        np.int32(len(block)),
        k=best.distances.shape[1],
    )
    rows, columns = np.nonzero(np.asarray(possible)[: len(queries)])
    step = max(1, PAIR_NUMBERS // queries.exact.shape[1])
    for start in range(0, len(rows), step):
        pairs = rows[start : start + step], columns[start : start + step]
        difference = queries.exact[pairs[0]].astype(np.float64) - block.exact[pairs[1]]
        best.merge(pairs[0], np.sqrt(np.square(difference).sum(axis=1)), first + pairs[1])


@functools.partial(jax.jit, static_argnames="k")
def _possible(
    queries: tuple[Float[Array, "chunks q chunk"], Float[Array, " q"]],
    block: tuple[Float[Array, "chunks n chunk"], Float[Array, " n"]],
    limits: Float[Array, " q"],
    left_out: Int[Array, " q"],
    count: Int[Array, ""],
    *,
    k: int,
) -> Bool[Array, "q n"]:
    """Whether an item may be among the `k` nearest, given the square of the largest distance found until now.

    A sum of n products in float32 is wrong by at most about n units of the sum of their absolute values, in any order
    of the additions, and that sum is at most the product of the lengths (Higham 2002, section 3.1).
    """
    (q, q_lengths), (d, d_lengths) = queries, block
    dots = lax.scan(lambda total, pair: (total + _dot(*pair), None), jnp.zeros((q.shape[1], d.shape[1])), (q, d))[0]
    squares = jnp.square(q_lengths)[:, None] + jnp.square(d_lengths)[None, :] - 2 * dots
    length = q_lengths[:, None] + d_lengths[None, :]
    error = 2 * UNIT * (CHUNK + len(q) + 8) * jnp.square(length) + TINY
    error = jnp.where(length < SAFE, error, jnp.inf)
    columns = jnp.arange(d.shape[1], dtype=jnp.int32)[None, :]
    searched = (columns < count) & (columns != left_out[:, None])
    upper = jnp.where(searched & jnp.isfinite(error), squares + error, jnp.inf)
    if k <= d.shape[1]:  # then the block alone bounds the distance of the k-th
        limits = jnp.minimum(limits, -lax.top_k(-upper, k)[0][:, -1])
    return searched & ~(squares - error > limits[:, None])  # NaN counts as possible


def _dot(q: Float[Array, "q chunk"], d: Float[Array, "n chunk"]) -> Float[Array, "q n"]:
    return jnp.matmul(q, d.T, precision=lax.Precision.HIGHEST)  # accelerators would round to fewer bits


def _rows(vectors: np.ndarray, name: str, first: int) -> np.ndarray:
    """The vectors as `[n, d]`; `first` is the number of the first one, for errors.

    Raises:
      UsageError: a number is NaN or infinite.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim < 2:
        raise UsageError(f"{name} have the shape {vectors.shape}; vectors are [n, d]")
    vectors = vectors.reshape(len(vectors), -1)
    if not np.isfinite(vectors).all():
        row = first + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise UsageError(f"row {row:,} of the {name} holds NaN or infinity; distances from there make no sense")
    return vectors


def _split(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The blocks in parts of at most `size` rows."""
    first = 0
    for block in blocks:
        for start in range(0, len(block), size):
            yield _rows(block[start : start + size], "database", first + start)
        first += len(block)

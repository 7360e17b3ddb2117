"""How well the ranking by binary codes finds the exact nearest neighbours."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, UInt8


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A database in the order of the Hamming distances from each query.

    Short codes leave many items at the same distance. Their order is drawn by lot, and all shares below are the mean
    over all draws, computed exactly: no order of the files helps or harms a code.

    Attributes:
      counts: items at each distance, from 0 to the number of bits.
      same: of these, items of the query's class.
      labelled: whether the query has a class.
      nearest: distances of the query's exact nearest neighbours.
    """

    counts: Int[np.ndarray, "q distances"]
    same: Int[np.ndarray, "q distances"]
    labelled: Bool[np.ndarray, " q"]
    nearest: Int[np.ndarray, "q k"]

    def recall(self, depth: int) -> float:
        """The share of the exact nearest neighbours that are among the first `depth` items, mean over queries."""
        return float(np.take_along_axis(self._chances(depth), self.nearest, axis=1).mean())

    def same_class(self, depth: int) -> float | None:
        """The share of the query's class among the first `depth` items, mean over queries; None: none has a class."""
        if not self.labelled.any():
            return None
        depth = min(depth, int(self.counts[0].sum()))
        return float((self._chances(depth) * self.same).sum(axis=1)[self.labelled].mean() / depth)

    def _chances(self, depth: int) -> np.ndarray:
        """For each query and distance, the share of its items that are among the first `depth`."""
        before = np.cumsum(self.counts, axis=1) - self.counts
        return np.clip((depth - before) / np.maximum(self.counts, 1), 0, 1)


def rank(
    queries: UInt8[np.ndarray, "q bytes"],
    code_blocks: Iterable[UInt8[np.ndarray, "_ bytes"]],
    neighbours: Int[np.ndarray, "q k"],
    *,
    query_labels: Int[np.ndarray, " q"],
    labels: Int[np.ndarray, " database"],
) -> Ranking:
    """Compares the queries' codes with all codes of a database, a block at a time.

    Args:
      queries: codes, packed.
      code_blocks: those of the database, read once.
      neighbours: the queries' exact nearest neighbours: places in the database.
      query_labels, labels: classes of queries and database; a negative label is no class.
    """
    distances = 8 * queries.shape[1] + 1
    counts, same = np.zeros((2, len(queries), distances), np.int64)
    neighbour_distances, labelled = np.zeros(neighbours.shape, np.int64), query_labels >= 0
    first = 0
    for block in code_blocks:
        part = slice(first, first + len(block))
        apart = np.asarray(_hamming(jnp.asarray(queries), jnp.asarray(block)))
        cells = np.arange(len(queries))[:, None] * distances + apart
        alike = (query_labels[:, None] == labels[None, part]) & labelled[:, None]
        counts += np.bincount(cells.ravel(), minlength=counts.size).reshape(counts.shape)
        same += np.bincount(cells[alike], minlength=same.size).reshape(same.shape)
        rows, columns = np.nonzero((neighbours >= part.start) & (neighbours < part.stop))
        neighbour_distances[rows, columns] = apart[rows, neighbours[rows, columns] - first]
        first = part.stop
    return Ranking(counts, same, labelled, neighbour_distances)


@jax.jit
def _hamming(queries: UInt8[Array, "q bytes"], block: UInt8[Array, "n bytes"]) -> Int32[Array, "q n"]:
    different = jnp.bitwise_xor(queries[:, None, :], block[None, :, :])
    return jnp.sum(jax.lax.population_count(different), axis=-1, dtype=jnp.int32)

"""Exact search against a search in NumPy's float64, and the recall of rankings."""

import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.retrieval import exact_search


def brute_force(queries, items, k, leave_out=None):
    difference = queries.astype(np.float64)[:, None] - items.astype(np.float64)[None]
    distances = np.sqrt(np.square(difference).sum(axis=-1))
    if leave_out is not None:
        distances[range(len(queries)), leave_out] = np.inf
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices


def blocks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def vectors(kind, count, features, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, features)).astype(np.float32)
    match kind:
        case "close":  # far from 0 and near each other: a difference of squares in float32 has no digit left
            return x * np.float32(1e-4) + np.float32(100)
        case "duplicates":
            return np.abs(x[rng.integers(0, count // 4, count)])
        case "equal":
            return np.ones_like(x)
        case "integers":  # whose distances are often equal
            return rng.integers(0, 3, (count, features)).astype(np.float32)
        case "huge":
            return x * np.float32(1e30)
        case "small":  # lengths have squares in float32, and products of the features have not
            return x * np.float32(2.5e-20)
        case "tiny":
            return x * np.float32(1e-30)
        case "mixed":
            return x * np.float32(10) ** rng.integers(-20, 20, (count, 1)).astype(np.float32)
    return x


KINDS = ["normal", "close", "duplicates", "equal", "integers", "huge", "small", "tiny", "mixed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [7, 1000])
def test_neighbours_are_those_of_a_search_in_float64(kind, block):
    items = vectors(kind, 200, 30, 0)
    queries = np.concatenate([items[:20], vectors(kind, 20, 30, 1)])
    distances, indices = exact_search.nearest(queries, blocks(items, block), 9)
    expected, expected_indices = brute_force(queries, items, 9)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_is_searched_among_the_others(kind):
    items, own = vectors(kind, 60, 12, 2), np.arange(60)
    distances, indices = exact_search.nearest(items, blocks(items, 16), 59, leave_out=own)
    expected, expected_indices = brute_force(items, items, 59, own)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(distances, expected)
    assert not (indices == own[:, None]).any()


def test_parts_of_queries_and_of_blocks_are_put_together(monkeypatch):
    monkeypatch.setattr(exact_search, "ROWS", 16)
    monkeypatch.setattr(exact_search, "PAIR_NUMBERS", 100)
    items, queries = vectors("normal", 130, 600, 3), vectors("normal", 45, 600, 4)
    seen = []
    distances, indices = exact_search.nearest(queries, blocks(items, 50), 20, progress=seen.append)
    expected, expected_indices = brute_force(queries, items, 20)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(distances, expected)
    assert seen == sorted(seen) and seen[-1] == 130


def test_few_items_are_measured_again(monkeypatch):
    """The bound on the error is tight enough that the search is one of matrix products."""
    items = np.maximum(vectors("normal", 2000, 4096, 5), 0)
    measured = []
    merge = exact_search._Best.merge

    def counted(self, rows, *rest):
        measured.append(len(rows))
        merge(self, rows, *rest)

    monkeypatch.setattr(exact_search._Best, "merge", counted)
    exact_search.nearest(items[:50], [items], 6)
    assert sum(measured) < 50 * 40


def test_maps_and_whole_numbers_are_vectors():
    items = np.random.default_rng(6).integers(0, 256, (40, 3, 3, 2), np.uint8)
    distances, indices = exact_search.nearest(items[:5], blocks(items, 9), 4)
    expected, expected_indices = brute_force(items[:5].reshape(5, -1), items.reshape(40, -1), 4)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize(
    ("queries", "items", "k", "reason"),
    [
        (np.zeros((3, 4)), np.zeros((5, 4)), 6, "6 neighbours .* 5 items"),
        (np.zeros((3, 4)), np.zeros((5, 4)), 0, "at least 1"),
        (np.zeros((3, 4)), np.zeros((5, 3)), 1, "4 features .* 3"),
        (np.zeros(4), np.zeros((5, 4)), 1, "shape"),
        (np.zeros((3, 4)), np.full((5, 4), np.nan), 1, "row 0 of the database holds NaN"),
        (np.array([[0.0], [np.inf]]), np.zeros((5, 1)), 1, "row 1 of the queries"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(queries, items, k, reason):
    with pytest.raises(UsageError, match=reason) as error:
        exact_search.nearest(queries, [items], k)
    assert "\n" not in str(error.value)


def test_an_error_numbers_the_rows_through_all_blocks():
    items = np.zeros((5000, 2))
    items[4321] = np.nan
    with pytest.raises(UsageError, match="row 4,321 of the database holds NaN"):
        exact_search.nearest(items[:3], np.split(items, 5), 1)
    with pytest.raises(UsageError, match="row 4,321 of the queries holds NaN"):
        exact_search.nearest(items[4000:], [items[:9]], 1, first_query=4000)


def test_more_neighbours_than_others_are_one_line():
    items = vectors("normal", 5, 4, 7)
    with pytest.raises(UsageError, match=r"5 neighbours .* 4 items"):
        exact_search.nearest(items, [items], 5, leave_out=np.arange(5))

"""Binary codes of vectors near a surface of few dimensions, and the ranking that they give."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.retrieval import code_trial, codes, exact_search, recall
from alexnet_jax.retrieval.code_trial import Options
from alexnet_jax.retrieval.columns import Names, Rows, Scratch
from alexnet_jax.retrieval.feature_table import Table


def surface(count, seed=0, *, inner=6, features=64):
    """Points of a curved surface of `inner` dimensions among many features."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((inner, 48)), rng.standard_normal((48, features))
    points = rng.standard_normal((count, inner))
    return (np.maximum(points @ first, 0) @ second).astype(np.float32)


def vectors_of(x):
    return codes.Vectors(len(x), lambda places: x[places], lambda: iter([x[:100], x[100:]]))


def bits_of(packed):
    return np.unpackbits(packed, axis=1).astype(bool)


@pytest.fixture(scope="module")
def learnt():
    x = surface(900)
    return x, codes.train_autoencoder(vectors_of(x[:800]), 24, seed=0, updates=500)


def recall_of(encode, x, k=10):
    items, queries = x[:800], x[800:]
    _, neighbours = exact_search.nearest(queries, [items], k)
    none = np.full(100, -1)
    ranking = recall.rank(encode(queries), [encode(items)], neighbours, query_labels=none, labels=np.full(800, -1))
    return ranking.recall(k)


def test_learnt_codes_find_more_neighbours_than_random_hyperplanes(learnt):
    x, encode = learnt
    around = codes.moments(vectors_of(x[:800]))
    floor = max(recall_of(codes.random_hyperplanes(around, 24, seed=seed), x) for seed in range(3))
    assert recall_of(encode, x) > floor + 0.05


def test_the_bits_of_a_learnt_code_differ_and_are_about_half_set(learnt):
    x, encode = learnt
    bits = bits_of(encode(x))
    assert bits.shape == (900, 24)
    assert (abs(bits.mean(axis=0) - 0.5) < 0.35).all()
    assert len(np.unique(bits, axis=1).T) == 24


def test_a_seed_gives_the_same_codes_and_another_seed_others():
    x = surface(120)
    first, again, other = (codes.train_autoencoder(vectors_of(x), 8, seed=s, updates=5)(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_only_the_signs_of_a_code_come_through_and_the_gradient_reaches_every_parameter():
    """The straight-through gradient is none of the signs, which have none."""
    import jax
    import jax.numpy as jnp

    model = codes.Autoencoder(64, 4)
    x = jnp.asarray(codes.moments(vectors_of(surface(200))).standardize(surface(200)))
    params = model.init(jax.random.key(0), x)
    gradient = jax.grad(lambda params: jnp.mean(jnp.square(model.apply(params, x) - x)))(params)
    assert all((np.abs(leaf) > 0).any() for leaf in jax.tree.leaves(gradient))
    units = np.asarray(model.apply(params, x, method="encode"))
    made = model.apply(params, x)
    signs = np.where(units > 0, 1, -1)
    same = [np.flatnonzero((signs == row).all(axis=1)) for row in signs]
    assert max(map(len, same)) > 10 and np.ptp(units[max(same, key=len)], axis=0).max() > 0.1
    assert all(np.allclose(made[rows], made[rows[0]], atol=1e-5) for rows in same)  # nothing but signs comes through


def test_equal_vectors_have_equal_codes_without_nan():
    x = np.full((150, 10), 3, np.float32)
    packed = codes.train_autoencoder(vectors_of(x), 8, seed=0, updates=3)(x)
    assert (packed == packed[0]).all()
    assert codes.moments(vectors_of(x)).deviation == 1


def test_moments_are_those_of_numpy():
    x = surface(150) + np.float32(1000)
    around = codes.moments(vectors_of(x))
    np.testing.assert_allclose(around.mean, x.mean(axis=0, dtype=np.float64))
    assert around.deviation == pytest.approx(np.sqrt(x.astype(np.float64).var(axis=0).mean()))


def test_hyperplanes_pass_through_the_mean():
    x = surface(300) + np.float32(50)
    bits = bits_of(codes.random_hyperplanes(codes.moments(vectors_of(x)), 64, seed=0)(x))
    assert (abs(bits.mean(axis=0) - 0.5) < 0.3).all()


def slow_ranking(queries, items, neighbours, depth, query_labels, labels, draws=4000):
    """Recall and share of the class as the mean over orders of equal distances drawn at random."""
    rng = np.random.default_rng(0)
    apart = (bits_of(queries)[:, None] != bits_of(items)[None]).sum(axis=-1)
    found, same = [], []
    for _ in range(draws):
        order = np.argsort(apart + rng.random(apart.shape) * 0.5, axis=1)[:, :depth]
        found.append(np.mean([np.isin(n, o).mean() for n, o in zip(neighbours, order, strict=True)]))
        same.append(np.mean([(labels[o] == q).mean() for q, o in zip(query_labels, order, strict=True) if q >= 0]))
    return np.mean(found), np.mean(same)


@pytest.mark.parametrize("depth", [1, 4, 20])
def test_equal_distances_count_as_the_mean_over_their_orders(depth):
    rng = np.random.default_rng(1)
    queries, items = rng.integers(0, 4, (5, 1), np.uint8), rng.integers(0, 4, (20, 1), np.uint8)
    neighbours = np.array([rng.permutation(20)[:3] for _ in range(5)])
    query_labels, labels = np.array([0, 1, -1, 0, 1]), rng.integers(-1, 2, 20)
    ranking = recall.rank(queries, [items[:7], items[7:]], neighbours, query_labels=query_labels, labels=labels)
    expected, expected_same = slow_ranking(queries, items, neighbours, depth, query_labels, labels)
    assert ranking.recall(depth) == pytest.approx(expected, abs=0.02)
    assert ranking.same_class(depth) == pytest.approx(expected_same, abs=0.02)
    if depth == 20:
        assert ranking.recall(depth) == 1
        assert ranking.same_class(50) == ranking.same_class(20)


def test_without_classes_there_is_no_share_of_a_class():
    packed = np.zeros((3, 1), np.uint8)
    none = np.full(3, -1)
    ranking = recall.rank(packed, [packed], np.zeros((3, 1), int), query_labels=none, labels=none)
    assert ranking.same_class(1) is None


@pytest.fixture
def scratch(tmp_path):
    with Scratch(str(tmp_path)) as made:
        yield made


def table(scratch, x, labels=None, classes=("a", "b")):
    names, rows, features = Names(scratch), Rows(scratch, np.int64), Rows(scratch, np.float32, (64,))
    names.append([str(i) for i in range(len(x))])
    rows.append(np.zeros(len(x), np.int64) if labels is None else labels)
    features.append(x)
    pixels = Rows(scratch, np.uint8, (2, 2, 3))
    pixels.append(np.random.default_rng(0).integers(0, 256, (len(x), 2, 2, 3)))
    return Table(names, rows, features, classes, pixels)


def trial(scratch, database, queries=None, **options):
    seen = []
    options = Options(**dict(bits=16, k=5, seed=0, updates=60) | options)
    result = code_trial.run(
        database,
        queries,
        options,
        layer="fc7",
        scratch=scratch,
        progress=lambda name: lambda done: seen.append((name, done)),
    )
    return result, seen


def test_held_out_pictures_are_never_learnt_from_nor_searched(monkeypatch, scratch):
    x = surface(200)
    learnt_from = []
    train = codes.train_autoencoder

    def watched(vectors, bits, **options):
        learnt_from.append(np.concatenate(list(vectors.blocks())))
        return train(vectors, bits, **options)

    monkeypatch.setattr(codes, "train_autoencoder", watched)
    database = table(scratch, x)
    result, seen = trial(scratch, database)
    assert (result.queries, result.database) == (20, 180)
    exact = code_trial.search(database, None, Options(16, 5, 0, 1))
    assert not set(exact.chosen) & set(exact.kept)
    np.testing.assert_array_equal(learnt_from[0], x[exact.kept])
    assert learnt_from[1].shape == (180, 12)  # pixels
    assert seen[-1] == ("pixels", 60) and ("fc7", 60) in seen
    assert database.codes is not None and len(database.codes) == 200


def test_queries_of_their_own_search_the_whole_database_and_get_codes(scratch):
    x = surface(260)
    labels = (x[:, 0] > 0).astype(np.int64)
    database, queries = (
        table(scratch, x[:200], labels[:200]),
        table(scratch, x[200:], 1 - labels[200:], classes=("b", "a")),
    )
    result, _ = trial(scratch, database, queries)
    assert (result.queries, result.database, tuple(result.depths)) == (60, 200, (5, 50))
    exact = next(each for each in result.results if each.name == "exact distances in fc7")
    assert exact.same_class > 0.75  # classes are compared by name
    assert len(database.codes) == 200 and len(queries.codes) == 60
    pixels = next(each for each in result.results if each.name == "exact distances in pixels")
    asked, items = (each.pixels.read(0, 200).reshape(-1, 12).astype(int) for each in (queries, database))
    by_pixels = np.argsort(np.square(asked[:, None] - items[None]).sum(axis=-1), axis=1, kind="stable")
    _, nearest = exact_search.nearest(x[200:], [x[:200]], 5)
    hits = [len(set(a[:50]) & set(b)) for a, b in zip(by_pixels, nearest, strict=True)]
    assert pixels.recalls[1] == pytest.approx(np.mean(hits) / 5)
    assert pixels.same_class == pytest.approx((labels[by_pixels[:, :5]] == labels[200:, None]).mean())
    around = codes.random_hyperplanes(codes.moments(vectors_of(x[:200])), 16, seed=0)
    learnt = (each.codes.read(0, 200) for each in (queries, database))
    for row, (asked, items) in ((0, learnt), (2, (around(x[200:]), around(x[:200])))):
        recalled, alike = slow_ranking(asked, items, nearest, 5, labels[200:], labels[:200], draws=300)
        assert result.results[row].recalls[0] == pytest.approx(recalled, abs=0.02)
        assert result.results[row].same_class == pytest.approx(alike, abs=0.02)
    by_lot = result.results[-1]
    assert by_lot.recalls == [5 / 200, 50 / 200]
    shares = [(labels[:200] == label).mean() for label in labels[200:]]
    assert by_lot.same_class == pytest.approx(np.mean(shares)) and not 0.49 < np.mean(shares) < 0.51


def test_the_seed_draws_queries_and_codes(scratch):
    tables = [table(scratch, surface(200)) for _ in range(2)]
    chosen = [code_trial.search(tables[0], None, Options(16, 5, seed, 1)).chosen for seed in (0, 1)]
    assert set(chosen[0]) != set(chosen[1])
    for seed, each in enumerate(tables):
        trial(scratch, each, table(scratch, surface(60)), seed=seed, updates=3)  # learn from all of each
    assert (tables[0].codes.read(0, 200) != tables[1].codes.read(0, 200)).any()


def test_the_first_bit_of_a_code_is_the_highest_of_its_byte():
    """As docs/retrieval.md says, and `numpy.unpackbits` reads."""
    assert codes._pack(jnp.asarray([[True] + [False] * 7])).tolist() == [[128]]


def test_many_neighbours_take_no_memory_by_their_square():
    x, k = surface(2000, features=8), 200
    rows, none = np.arange(100), np.full(2000, -1)
    _, neighbours = exact_search.nearest(x[rows], [x], k)
    exact = code_trial.Exact(rows, np.arange(2000), neighbours, none[rows], none)
    tracemalloc.start()
    result = exact.compare("itself", vectors_of(x), x[rows])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.recalls == [1, 1]
    assert peak < 100 * 2000 * k  # a byte for each pair of a found item and a neighbour


def test_too_few_pictures_are_one_line(scratch):
    for count in (1, 4, 12):
        with pytest.raises(UsageError, match=r"6 nearest neighbours .* 12 others, and there are") as error:
            trial(scratch, table(scratch, surface(count)), k=6)
        assert "\n" not in str(error.value)
    assert trial(scratch, table(scratch, surface(13)), k=6, updates=1)[0].database == 12

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.learning.metrics import ZERO, Metrics, measure


def measured(probs, labels, mask=None):
    probs = np.asarray(probs, np.float32)
    mask = np.ones(len(probs), bool) if mask is None else np.asarray(mask)
    return measure(jnp.log(jnp.asarray(probs)), jnp.asarray(labels, jnp.int32), jnp.asarray(mask))


def test_errors_are_counted_by_rank():
    probs = np.tile([0.3, 0.2, 0.15, 0.13, 0.12, 0.06, 0.04], (7, 1))
    metrics = measured(probs, range(7))
    assert float(metrics.count) == 7
    assert float(metrics.top1) == 6
    assert float(metrics.top5) == 2
    np.testing.assert_allclose(float(metrics.loss), -np.log(probs[0]).sum(), rtol=1e-6)


def test_a_tie_counts_by_its_share():
    metrics = measured([[0.25] * 4, [0.4, 0.4, 0.1, 0.1]], [0, 1])
    np.testing.assert_allclose(float(metrics.top1), 0.75 + 0.5)
    ten = measured([[0.1] * 10], [3])
    np.testing.assert_allclose(float(ten.top5), 0.5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("places", [[3], [0], range(8)])
def test_a_log_probability_that_is_not_finite_is_an_error_and_never_a_hit(wrong, places):
    """The first example would be a hit: its label is the likeliest class."""
    log_probs = np.log(np.tile([0.3, 0.2, 0.15, 0.1, 0.1, 0.06, 0.05, 0.04], (2, 1))).astype(np.float32)
    log_probs[0, list(places)] = wrong
    metrics = measure(jnp.asarray(log_probs), jnp.zeros(2, jnp.int32), jnp.ones(2, bool))
    assert (float(metrics.top1), float(metrics.top5), float(metrics.count)) == (1, 1, 2)
    assert np.isfinite(float(metrics.loss)) == (0 not in places)


def test_padding_counts_for_nothing_even_if_it_is_not_a_number():
    whole = measured([[0.7, 0.3], [0.2, 0.8]], [0, 0])
    padded = measured([[0.7, 0.3], [0.2, 0.8], [np.nan, np.nan]], [0, 0, 0], [True, True, False])
    assert jax.tree.map(float, whole) == jax.tree.map(float, padded)


@pytest.mark.parametrize(("classes", "names"), [(5, ["loss", "top1"]), (6, ["loss", "top1", "top5"])])
def test_a_top_5_error_takes_six_classes(classes, names):
    one = jax.tree.map(np.float64, measured([[1 / classes] * classes], [0]))
    assert list(one.means()) == list((ZERO + one + one).means()) == list((one + ZERO).means()) == names


def test_the_mean_of_no_example_is_refused():
    with pytest.raises(ValueError, match="hold no example"):
        ZERO.means()
    with pytest.raises(ValueError, match="hold no example"):
        Metrics(*(np.float32(0),) * 4).means()


def test_merging_is_addition():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet([1.0] * 8, 50), rng.integers(0, 8, 50)
    whole = measured(probs, labels).means()
    parts = ZERO
    for start in range(0, 50, 7):
        parts += measured(probs[start : start + 7], labels[start : start + 7])
    for name, value in parts.means().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6)

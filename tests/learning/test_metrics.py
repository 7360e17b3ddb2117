import jax.numpy as jnp
import numpy as np

from alexnet_jax.learning.metrics import ZERO, measure


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
    assert float(metrics.top5) == 0
    ten = measured([[0.1] * 10], [3])
    np.testing.assert_allclose(float(ten.top5), 0.5)


def test_padding_counts_for_nothing_even_if_it_is_not_a_number():
    whole = measured([[0.7, 0.3], [0.2, 0.8]], [0, 0])
    padded = measured([[0.7, 0.3], [0.2, 0.8], [np.nan, np.nan]], [0, 0, 0], [True, True, False])
    assert [float(v) for v in vars(whole).values()] == [float(v) for v in vars(padded).values()]


def test_merging_is_addition():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet([1.0] * 8, 50), rng.integers(0, 8, 50)
    whole = measured(probs, labels).means()
    parts = ZERO
    for start in range(0, 50, 7):
        parts += measured(probs[start : start + 7], labels[start : start + 7])
    for name, value in parts.means().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6)

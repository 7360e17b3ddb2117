"""What came after 2012: each option against its formula in NumPy, and that leaving it out changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.plateau import fresh, observe
from alexnet_jax.learning.step import loss_fn

RNG = np.random.default_rng(0)
PARAMS = {"a": {"kernel": RNG.normal(size=(2, 3, 4)), "bias": RNG.normal(size=(2, 4))}}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)
GRADIENTS = [jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), PARAMS) for _ in range(3)]


def run(**options):
    """Kernel and bias after three updates at rate 0.1, momentum 0.9, decay 0.01."""
    rates = jax.tree.map(lambda _: piecewise([(0, 0.1)]), PARAMS)
    update = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.01, **options)
    params, state = jax.tree.map(jnp.asarray, PARAMS), update.init(PARAMS)
    for gradients in GRADIENTS:
        updates, state = update.update(jax.tree.map(jnp.asarray, gradients), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params["a"]


def by_hand(*, nesterov=False, clip=np.inf, trust=None):
    kernel, bias = PARAMS["a"]["kernel"].astype(float), PARAMS["a"]["bias"].astype(float)
    v_kernel, v_bias = np.zeros_like(kernel), np.zeros_like(bias)
    for gradients in GRADIENTS:
        g_kernel, g_bias = (gradients["a"][name].astype(float) for name in ("kernel", "bias"))
        length = np.sqrt((g_kernel**2).sum() + (g_bias**2).sum())
        g_kernel, g_bias = (g * min(1, clip / length) for g in (g_kernel, g_bias))
        rate = 0.1
        if trust is not None:
            size = np.sqrt((kernel**2).sum())
            rate *= trust * size / (np.sqrt((g_kernel**2).sum()) + 0.01 * size)
        push_kernel, push_bias = rate * (g_kernel + 0.01 * kernel), 0.1 * g_bias
        v_kernel, v_bias = 0.9 * v_kernel - push_kernel, 0.9 * v_bias - push_bias
        kernel = kernel + (0.9 * v_kernel - push_kernel if nesterov else v_kernel)
        bias = bias + (0.9 * v_bias - push_bias if nesterov else v_bias)
    return {"kernel": kernel, "bias": bias}


@pytest.mark.parametrize(
    ("options", "hand"),
    [
        ({}, {}),
        ({"nesterov": True}, {"nesterov": True}),
        ({"clip_norm": 1.5}, {"clip": 1.5}),
        ({"clip_norm": 100.0}, {}),
        ({"trust": 0.02}, {"trust": 0.02}),
    ],
)
def test_options_follow_their_formulas(options, hand):
    found, expected = run(**options), by_hand(**hand)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-6)


def test_decay_of_a_layer_s_own():
    rates = jax.tree.map(lambda _: piecewise([(0, 0.1)]), PARAMS)
    update = krizhevsky_sgd(rates, momentum=0.9, weight_decay={"a": {"kernel": 0.5, "bias": 0.5}})
    params = jax.tree.map(jnp.asarray, PARAMS)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update.update(nothing, update.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05 * PARAMS["a"]["kernel"], rtol=1e-6)
    assert not np.any(updates["a"]["bias"])


def test_running_statistics_follow_without_momentum_decay_or_clipping():
    params = {"conv1_norm": {"mean": jnp.zeros((1, 2))}}
    update = krizhevsky_sgd(
        {"conv1_norm": {"mean": piecewise([(0, 0.0)])}}, momentum=0.9, weight_decay=0.5, clip_norm=1e-3
    )
    state = update.init(params)
    for expected in (1.0, 1.9, 2.71):
        distance = jax.tree.map(lambda mean: mean - 10, params)
        updates, state = update.update(distance, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(params["conv1_norm"]["mean"], expected, rtol=1e-6)


def test_label_smoothing_spreads_a_share_of_the_target():
    logits = RNG.normal(size=(4, 5)).astype(np.float32)
    labels, mask = np.array([0, 1, 2, 3], np.int32), np.array([True, True, True, False])
    batch = Batch(jnp.zeros((4, 1, 1, 3), jnp.uint8), jnp.asarray(labels), jnp.asarray(mask))

    def loss(smoothing):
        value, metrics = loss_fn(
            {}, jnp.zeros((4, 1, 1, 3)), batch, jax.random.key(0), lambda *_: jnp.asarray(logits), smoothing
        )
        return float(value), float(metrics.loss / metrics.count)

    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    plain = -np.mean([log_probs[i, labels[i]] for i in range(3)])
    assert loss(0.1) == pytest.approx((-(target * log_probs)[:3].sum() / 3, plain), rel=1e-5)
    assert loss(0.0) == pytest.approx((plain, plain), rel=1e-6)


def test_a_plateau_divides_by_ten_when_the_error_stops_falling():
    plateau, factors = fresh(), []
    for step, error in enumerate([0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]):
        plateau = observe(plateau, jnp.float32(error), jnp.int32(step), patience=2, max_drops=3)
        factors.append(float(plateau.factor))
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3])
    assert int(plateau.seen) == 10


def test_a_plateau_s_factor_reaches_the_rate():
    rates = jax.tree.map(lambda _: piecewise([(0, 0.1)]), PARAMS)
    update = krizhevsky_sgd(rates, momentum=0.0, weight_decay=0.0, plateau=True)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = update.init(params)
    state = state.replace(plateau=state.plateau.replace(drops=jnp.int32(2)))
    gradients = jax.tree.map(jnp.asarray, GRADIENTS[0])
    updates, _ = update.update(gradients, state, params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.001 * GRADIENTS[0]["a"]["kernel"], rtol=1e-5)

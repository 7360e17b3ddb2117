"""What came after 2012: each option against its formula in NumPy, and that leaving it out changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.plateau import fresh, observe
from alexnet_jax.learning.step import build_steps, loss_fn
from alexnet_jax.network import sharding
from alexnet_jax.network.tower import make_tower
from tests import small

RNG = np.random.default_rng(0)
PARAMS = {"a": {"kernel": RNG.normal(size=(2, 3, 4)), "bias": RNG.normal(size=(2, 4))}}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)
GRADIENTS = [jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), PARAMS) for _ in range(3)]


def run(**options):
    """Kernel and bias after three updates at rate 0.1, momentum 0.9, decay 0.01."""
    rates = jax.tree.map(lambda _: piecewise([(0, 0.1)]), PARAMS)
    update = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.01, **options)
    params, state = jax.tree.map(jnp.asarray, PARAMS), update.init(PARAMS)
    for step, gradients in enumerate(GRADIENTS):
        gradients = jax.tree.map(jnp.asarray, gradients)
        updates, state = update.update(gradients, state, params, step=jnp.int32(step))
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
    updates, _ = update.update(nothing, update.init(params), params, step=jnp.int32(0))
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05 * PARAMS["a"]["kernel"], rtol=1e-6)
    assert not np.any(updates["a"]["bias"])


def test_label_smoothing_spreads_a_share_of_the_target():
    logits = RNG.normal(size=(4, 5)).astype(np.float32)
    labels, mask = np.array([0, 1, 2, 3], np.int32), np.array([True, True, True, False])
    batch = Batch(jnp.zeros((4, 1, 1, 3), jnp.uint8), jnp.asarray(labels), jnp.asarray(mask))

    def loss(smoothing):
        images, forward = jnp.zeros((4, 1, 1, 3)), lambda *_: (jnp.asarray(logits), {})
        value, (metrics, _) = loss_fn({}, {}, images, batch, jax.random.key(0), forward, smoothing)
        return float(value), float(metrics.loss / metrics.count)

    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    plain = -np.mean([log_probs[i, labels[i]] for i in range(3)])
    assert loss(0.1) == pytest.approx((-(target * log_probs)[:3].sum() / 3, plain), rel=1e-5)
    assert loss(0.0) == pytest.approx((plain, plain), rel=1e-6)


def test_a_step_smooths_the_labels():
    tower = make_tower("one_tower", num_classes=5, width=0.05, he_init=True)
    mesh = sharding.make_mesh(data=1, tower=1)
    batch = sharding.put_batch(small.batch(4), mesh)

    def velocity(smoothing: float):
        """Of the last layer's bias after one update at rate 0.01: the gradient is `probabilities - targets`."""
        steps = build_steps(
            tower=tower, optimizer=small.optimizer(tower), photometry=small.photometry, mesh=mesh, image_size=67,
            label_smoothing=smoothing,
        )  # fmt: skip
        state, _ = steps.train_step(steps.init(jax.random.key(0)), batch, jax.random.key(0))
        return np.asarray(state.opt_state.velocity["fc8"]["bias"]).ravel()

    targets = np.eye(5)[batch.label].mean(axis=0)
    np.testing.assert_allclose(velocity(0.2) - velocity(0.0), 0.01 * 0.2 * (1 / 5 - targets), atol=1e-7)


def test_lars_moves_a_kernel_that_is_zero_and_leaves_one_without_gradient():
    rates = {"a": {"kernel": piecewise([(0, 0.1)])}}
    update = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.01, trust=0.02)
    ones, zeros = ({"a": {"kernel": jnp.full((2, 3), value, jnp.float32)}} for value in (1.0, 0.0))
    for gradients, params, expected in ((ones, zeros, -0.1), (zeros, ones, -0.001), (zeros, zeros, 0.0)):
        updates, _ = update.update(gradients, update.init(params), params, step=jnp.int32(0))
        np.testing.assert_allclose(updates["a"]["kernel"], expected, rtol=1e-6)


def test_a_plateau_divides_by_ten_when_the_error_stops_falling():
    plateau, factors = fresh(), []
    for step, error in enumerate([0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]):
        plateau = observe(plateau, jnp.float32(error), jnp.int32(step), patience=2, max_drops=3)
        factors.append(float(plateau.factor))
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3])
    assert int(plateau.seen) == 10


def test_an_error_that_is_not_finite_is_no_progress():
    plateau = fresh()
    for step, error in enumerate([0.9, np.nan, np.nan, 0.8]):
        plateau = observe(plateau, jnp.float32(error), jnp.int32(step), patience=2, max_drops=3)
    assert float(plateau.best) == pytest.approx(0.8)
    assert int(plateau.drops) == 1


def test_a_factor_multiplies_every_rate():
    rates = jax.tree.map(lambda _: piecewise([(0, 0.1)]), PARAMS)
    update = krizhevsky_sgd(rates, momentum=0.0, weight_decay=0.0)
    params, gradients = (jax.tree.map(jnp.asarray, tree) for tree in (PARAMS, GRADIENTS[0]))
    updates, _ = update.update(gradients, update.init(params), params, step=jnp.int32(0), factor=jnp.float32(0.01))
    np.testing.assert_allclose(updates["a"]["kernel"], -0.001 * GRADIENTS[0]["a"]["kernel"], rtol=1e-5)


def test_a_step_multiplies_the_rates_by_the_plateau_s_factor():
    tower = make_tower("one_tower", num_classes=5, width=0.05, he_init=True)
    mesh = sharding.make_mesh(data=1, tower=1)
    steps = build_steps(
        tower=tower, optimizer=small.optimizer(tower, momentum=0.0, weight_decay=0.0), photometry=small.photometry,
        mesh=mesh, image_size=67, memory=fresh(), observe=functools.partial(observe, patience=1, max_drops=3),
    )  # fmt: skip
    batch = sharding.put_batch(small.batch(4), mesh)

    def moved(errors):
        state = steps.init(jax.random.key(0))
        before = np.asarray(state.params["fc8"]["kernel"])
        for error in errors:
            state = steps.observe(state, error)
        return steps.train_step(state, batch, jax.random.key(1))[0].params["fc8"]["kernel"] - before

    np.testing.assert_allclose(moved([0.5, 0.5]), 0.1 * moved([]), rtol=1e-3, atol=1e-7)

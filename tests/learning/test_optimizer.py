import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise

TABLE = [(0, 0.01), (3, 0.001), (6, 0.0), (8, 0.002)]


def updates(steps: int, leaf: str, optimizer: optax.GradientTransformationExtraArgs) -> list[float]:
    params = {"conv1": {leaf: jnp.float32(1.0)}}
    state, seen = optimizer.init(params), []
    for step in range(steps):
        gradients = {"conv1": {leaf: jnp.float32(0.3 + 0.1 * step)}}
        change, state = optimizer.update(gradients, state, params, step=jnp.int32(step))
        params = optax.apply_updates(params, change)
        seen.append(float(params["conv1"][leaf]))
    return seen


@pytest.mark.parametrize(("leaf", "decay"), [("kernel", 5e-2), ("bias", 0.0)])
def test_the_update_is_the_papers_equation_across_rate_drops_and_a_freeze(leaf: str, decay: float):
    w, v, expected = 1.0, 0.0, []
    rates = [0.01] * 3 + [0.001] * 3 + [0.0] * 2 + [0.002] * 2
    for step, rate in enumerate(rates):
        if rate:  # frozen means frozen: A/src/weights.cu:148
            v = 0.9 * v - decay * rate * w - rate * (0.3 + 0.1 * step)
            w += v
        expected.append(w)
    optimizer = krizhevsky_sgd({"conv1": {leaf: piecewise(TABLE)}}, momentum=0.9, weight_decay=5e-2)
    np.testing.assert_allclose(updates(10, leaf, optimizer), expected, rtol=1e-6)


def test_it_agrees_with_optax_parts_and_differs_from_optax_sgd():
    rate = piecewise([(0, 0.01), (3, 0.001)])
    ours = krizhevsky_sgd({"conv1": {"kernel": rate}}, momentum=0.9, weight_decay=5e-4)
    parts = optax.chain(optax.add_decayed_weights(5e-4), optax.scale_by_learning_rate(rate), optax.trace(0.9))
    usual = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))
    parts, usual = map(optax.with_extra_args_support, (parts, usual))
    np.testing.assert_allclose(updates(8, "kernel", ours), updates(8, "kernel", parts), rtol=1e-6)
    assert updates(8, "kernel", ours)[3] != pytest.approx(updates(8, "kernel", usual)[3], rel=1e-4)


@pytest.mark.parametrize("leaf", ["scale", "bias"])
def test_only_kernels_decay(leaf: str):
    """The scale of a batch norm is named as such."""
    leaves = {"kernel": jnp.ones(2, jnp.float32), leaf: jnp.ones(2, jnp.float32)}
    rates = {"conv1": dict.fromkeys(leaves, piecewise([(0, 1.0)]))}
    for decay in (0.5, {"conv1": dict.fromkeys(leaves, 0.5)}):
        optimizer = krizhevsky_sgd(rates, momentum=0.9, weight_decay=decay)
        params, zeros = {"conv1": leaves}, {"conv1": jax.tree.map(jnp.zeros_like, leaves)}
        change, _ = optimizer.update(zeros, optimizer.init(params), params, step=jnp.int32(0))
        np.testing.assert_allclose(change["conv1"]["kernel"], -0.5)
        np.testing.assert_allclose(change["conv1"][leaf], 0.0)


def test_every_leaf_has_its_own_schedule():
    rates = {"conv1": {"kernel": piecewise([(0, 1.0)]), "bias": piecewise([(0, 2.0)])}}
    optimizer = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.0)
    params = {"conv1": {"kernel": jnp.ones(2, jnp.float32), "bias": jnp.ones(2, jnp.float32)}}
    change, _ = optimizer.update(params, optimizer.init(params), params, step=jnp.int32(0))
    np.testing.assert_allclose(change["conv1"]["kernel"], -1)
    np.testing.assert_allclose(change["conv1"]["bias"], -2)
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(params, optimizer.init(params), step=jnp.int32(0))


def test_a_table_is_a_staircase():
    schedule = piecewise(TABLE)
    steps = [0, 2, 3, 5, 6, 7, 8, 100]
    values = [float(schedule(jnp.int32(step))) for step in steps]
    np.testing.assert_allclose(values, [0.01, 0.01, 0.001, 0.001, 0, 0, 0.002, 0.002])
    assert float(jax.jit(schedule)(jnp.int32(4))) == pytest.approx(0.001)

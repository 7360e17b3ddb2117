"""Properties of the networks beside net 145: `tests/reference` has their numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.batch import Batch
from alexnet_jax.errors import UsageError
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.step import init_state, jit_train_step
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import layers, sharding
from alexnet_jax.network.recipes import RECIPES
from alexnet_jax.network.tower import make_tower

RNG = np.random.default_rng(0)


def initial(tower, size):
    return jax.jit(lambda key: forwards.init_params(tower, key, size))(jax.random.key(0))


def test_batch_norm_normalises_by_the_batch_and_tracks_it():
    x = RNG.normal(3, 2, (4, 5, 5, 6)).astype(np.float32)
    leaves = {
        "scale": np.full(6, 2.0),
        "bias": np.full(6, 1.0),
        "mean": RNG.normal(size=6),
        "variance": np.full(6, 9.0),
    }
    leaves = {name: jnp.asarray(values, jnp.float32) for name, values in leaves.items()}

    def total(leaves, x):
        return jnp.sum(layers.batch_norm(x, **leaves, train=True) ** 3)

    y = layers.batch_norm(jnp.asarray(x), **leaves, train=True)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * 2 + 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)

    gradients = jax.grad(total)(leaves, jnp.asarray(x))
    np.testing.assert_allclose(gradients["mean"], leaves["mean"] - x.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients["variance"], 9 - x.var((0, 1, 2)), rtol=1e-4)
    assert np.all(np.abs(gradients["scale"]) > 0)


def test_batch_norm_s_gradient_flows_through_the_statistics():
    """Adding a constant to a map, or scaling it, changes nothing: the gradient has no part along either."""
    x = jnp.asarray(RNG.normal(3, 2, (4, 3, 3, 2)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=x.shape), jnp.float32)
    leaves = dict(scale=jnp.ones(2), bias=jnp.zeros(2), mean=jnp.zeros(2), variance=jnp.ones(2))
    gradient = jax.grad(lambda x: jnp.sum(weights * layers.batch_norm(x, **leaves, train=True)))(x)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(gradient.sum((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose((gradient * x).sum((0, 1, 2)), 0, atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ("batch_norm", (1, 2)),
        ("batch_norm", (2, 1)),
        ("bvlc", (2, 2)),
        ("one_tower", (2, 1)),
        ("bottleneck", (2, 2)),
        ("cifar_11pct", (2, 1)),
    ],
)
def test_the_layout_changes_no_number(recipe, shape):
    """Losses of three steps, with what the recipe exchanges or averages over the batch."""
    tower = make_tower(recipe, num_classes=5, width=0.08, he_init=True)
    batch = Batch(
        RNG.integers(0, 256, (4, 67, 67, 3)).astype(np.uint8), np.array([0, 1, 2, 3], np.int32), np.ones(4, bool)
    )

    def losses(data, places):
        mesh = sharding.make_mesh(data=data, tower=places)
        params = initial(tower, 67)
        rates = jax.tree.map(lambda _: piecewise([(0, 0.01)]), params)
        update = krizhevsky_sgd(rates, momentum=0.9, weight_decay=5e-4)
        state = init_state(params, update)
        shardings = sharding.state_shardings(state, mesh)
        step = jit_train_step(
            mesh,
            shardings,
            forward=forwards.make_forward(tower, mesh),
            optimizer=update,
            photometry=lambda images, key, step: images.astype(jnp.float32) / 64 - 2,
        )
        state, found = jax.device_put(state, shardings), []
        for _ in range(3):
            state, metrics = step(state, sharding.put_batch(batch, mesh), jax.random.key(1))
            found.append(float(metrics.loss))
        return found

    np.testing.assert_allclose(losses(*shape), losses(1, 1), rtol=2e-5)


def test_batch_norm_refuses_both_axes_at_once():
    tower = make_tower("batch_norm", num_classes=5, width=0.08)
    with pytest.raises(UsageError, match=r"data=2 x tower=2; use config\.mesh\.tower=1"):
        forwards.make_forward(tower, sharding.make_mesh(data=2, tower=2))


def test_a_norm_across_towers_exchanges_its_margins_alone():
    tower = make_tower("bvlc", num_classes=4, width=0.1)
    mesh = sharding.make_mesh(data=1, tower=2)
    params = jax.eval_shape(lambda: initial(tower, 227))
    images = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    text = jax.jit(forwards.make_forward(tower, mesh)).lower(params, images).as_text()
    widths = [
        int(shape.split("x")[3])
        for shape in re.findall(r'"stablehlo.all_gather".*?\(tensor<(\d+x\d+x\d+x\d+)xf32', text, re.S)
    ]
    assert sorted(widths)[:2] == [4, 4]


def test_a_tower_too_narrow_for_a_norm_across_towers():
    tower = make_tower("bvlc", num_classes=2, width=0.025)
    with pytest.raises(UsageError, match="conv1 has 1 maps, too few"):
        jax.eval_shape(lambda: forwards.init_params(tower, jax.random.key(0), 67))


def test_half_width_activations_leave_parameters_and_logits_wide():
    wide, narrow = (make_tower("original", num_classes=4, width=0.1, dtype=dtype) for dtype in (None, jnp.bfloat16))
    params = initial(wide, 67)
    images = jnp.asarray(RNG.normal(0, 60, (2, 67, 67, 3)), jnp.float32)
    mesh = sharding.make_mesh(data=1, tower=1)
    expected, found = (jax.jit(forwards.make_forward(tower, mesh))(params, images) for tower in (wide, narrow))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial(narrow, 67))} == {jnp.dtype("float32")}
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_inverted_dropout_scales_in_training():
    x = jnp.ones((4, 1000))
    y = layers.dropout(x, 0.5, jax.random.key(0), inverted=True)
    assert set(np.unique(y)) == {0.0, 2.0}
    assert np.array_equal(layers.dropout(x, 0.5, None, inverted=True), x)


def test_he_initialisation_of_a_local_layer_counts_one_place():
    params = initial(make_tower("cifar_13pct", num_classes=10, he_init=True), 24)
    assert np.std(params["local3"]["kernel"]) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert not np.any(params["local3"]["bias"])


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_fewer_than_two_classes(recipe):
    with pytest.raises(UsageError, match="has 1 class"):
        make_tower(recipe, num_classes=1)

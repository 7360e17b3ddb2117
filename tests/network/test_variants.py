"""Properties of the networks beside net 145: `tests/reference` has their numbers."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import layers, recipes, sharding
from alexnet_jax.network.recipes import RECIPES
from alexnet_jax.network.tower import make_tower
from tests import small

RNG = np.random.default_rng(0)


def initial(tower, size):
    return jax.jit(lambda key: forwards.init_params(tower, key, size))(jax.random.key(0))


def test_batch_norm_normalises_by_the_moments_it_is_given():
    x = RNG.normal(3, 2, (4, 5, 5, 6)).astype(np.float32)
    mean, variance = layers.batch_moments(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-4)
    scale, bias = jnp.full(6, 2.0), jnp.full(6, 1.0)
    y = layers.batch_norm(jnp.asarray(x), scale=scale, bias=bias, mean=mean, variance=variance)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * 2 + 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_s_gradient_flows_through_the_statistics():
    """Adding a constant to a map, or scaling it, changes nothing: the gradient has no part along either."""
    x = jnp.asarray(RNG.normal(3, 2, (4, 3, 3, 2)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=x.shape), jnp.float32)

    def total(x):
        mean, variance = layers.batch_moments(x)
        y = layers.batch_norm(x, scale=jnp.ones(2), bias=jnp.zeros(2), mean=mean, variance=variance)
        return jnp.sum(weights * y)

    gradient = jax.grad(total)(x)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(gradient.sum((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose((gradient * x).sum((0, 1, 2)), 0, atol=1e-3)


def test_a_batch_norm_normalises_by_the_batch_in_training_and_by_the_averages_in_evaluation():
    tower = make_tower("batch_norm", num_classes=5, width=0.08)
    params, averages = jax.jit(lambda key: forwards.init_variables(tower, key, 67))(jax.random.key(0))
    mean, variance = averages["conv1_norm"]["mean"], averages["conv1_norm"]["variance"]
    averages["conv1_norm"] = {"mean": mean + 3, "variance": 4 * variance}
    images = jnp.asarray(RNG.normal(0, 60, (4, 67, 67, 3)), jnp.float32)

    def signals(train: bool):
        _, kept = jax.jit(
            functools.partial(
                tower.apply, train=train, rngs={"dropout": jax.random.key(1)}, mutable=["signals", "batch_stats"]
            )
        )({"params": params, "batch_stats": averages}, images)
        return (np.stack(kept["signals"][f"conv1_{name}"][0]) for name in ("out", "then0"))

    before, after = signals(train=True)
    expected = (before - before.mean((1, 2, 3), keepdims=True)) / np.sqrt(before.var((1, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-3)
    before, after = signals(train=False)
    np.testing.assert_allclose(after, (before - 3) / np.sqrt(4 + 1e-5), rtol=1e-4, atol=1e-4)


def test_running_averages_follow_the_batch_in_training_alone():
    tower = make_tower("batch_norm", num_classes=5, width=0.08)
    params, before = jax.jit(lambda key: forwards.init_variables(tower, key, 67))(jax.random.key(0))
    forward = jax.jit(forwards.make_forward(tower, sharding.make_mesh(data=2, tower=2)))
    images = jnp.asarray(RNG.normal(0, 60, (4, 67, 67, 3)), jnp.float32)
    _, same = forward(params, before, images)
    _, after = forward(params, before, images, jax.random.key(1))
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before, same)), strict=True))
    with_signals = jax.jit(functools.partial(tower.apply, train=False, mutable=["signals"]))
    _, kept = with_signals({"params": params, "batch_stats": before}, images)
    maps = np.stack(kept["signals"]["conv1_out"][0])
    np.testing.assert_allclose(after["conv1_norm"]["mean"], 0.1 * maps.mean((1, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after["conv1_norm"]["variance"], 0.9 + 0.1 * maps.var((1, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ("batch_norm", (1, 2)),
        ("batch_norm", (2, 2)),
        ("bvlc", (2, 2)),
        ("one_tower", (2, 1)),
        ("torchvision", (2, 1)),
        ("bottleneck", (2, 2)),
        ("cifar_11pct", (2, 1)),
    ],
)
@pytest.mark.long
def test_the_layout_changes_no_number(recipe, shape):
    """Losses of three steps, with what the recipe exchanges or averages over the batch."""
    tower = make_tower(recipe, num_classes=5, width=0.08, he_init=True)

    def losses(data, places):
        steps = small.steps(tower, sharding.make_mesh(data=data, tower=places))
        state, found = steps.init(jax.random.key(0)), []
        for _ in range(3):
            state, metrics = steps.train_step(state, sharding.put_batch(small.batch(4), steps.mesh), jax.random.key(1))
            found.append(float(metrics.loss))
        return found

    np.testing.assert_allclose(losses(*shape), losses(1, 1), rtol=2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_gradients_through_batch_norm_are_those_of_float64_on_one_device(shape):
    tower = make_tower("batch_norm", num_classes=5, width=0.08)
    params, batch_stats = jax.jit(lambda key: forwards.init_variables(tower, key, 67))(jax.random.key(0))
    images = RNG.normal(0, 60, (4, 67, 67, 3)).astype(np.float32)

    def gradient(mesh, *arguments):
        forward = forwards.make_forward(tower, mesh)
        key = jax.random.key(2)
        return jax.jit(jax.grad(lambda *args: jnp.sin(forward(*args, key)[0]).sum()))(*arguments)

    found = gradient(sharding.make_mesh(data=shape[0], tower=shape[1]), params, batch_stats, images)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, batch_stats, images))
        expected = gradient(sharding.make_mesh(data=1, tower=1), *wide)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for own, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-3, atol=1e-5 * largest)


def test_a_norm_across_towers_exchanges_its_margins_alone():
    tower = make_tower("bvlc", num_classes=4, width=0.1)
    mesh = sharding.make_mesh(data=1, tower=2)
    params = jax.eval_shape(lambda: initial(tower, 227))
    images = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    text = jax.jit(forwards.make_forward(tower, mesh)).lower(params, {}, images).as_text()
    widths = [
        int(shape.split("x")[3])
        for shape in re.findall(r'"stablehlo.all_gather".*?\(tensor<(\d+x\d+x\d+x\d+)xf32', text, re.S)
    ]
    assert sorted(widths)[:2] == [4, 4]


def test_a_tower_too_narrow_for_a_norm_across_towers():
    tower = make_tower("bvlc", num_classes=2, width=0.025)
    with pytest.raises(UsageError, match="conv1 has 1 maps, too few"):
        jax.eval_shape(lambda: forwards.init_params(tower, jax.random.key(0), 67))


@pytest.mark.parametrize("recipe", ["original", "torchvision"])
def test_half_width_activations_leave_parameters_and_logits_wide(recipe):
    wide, narrow = (make_tower(recipe, num_classes=4, width=0.1, dtype=dtype) for dtype in (None, jnp.bfloat16))
    params = initial(wide, 67)
    images = jnp.asarray(RNG.normal(0, 60, (2, 67, 67, 3)), jnp.float32)
    mesh = sharding.make_mesh(data=1, tower=1)
    expected, found = (jax.jit(forwards.make_forward(tower, mesh))(params, {}, images)[0] for tower in (wide, narrow))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial(narrow, 67))} == {jnp.dtype("float32")}
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert not np.array_equal(found, found.astype(jnp.bfloat16)), "logits are rounded to bfloat16"


def test_a_recipe_of_convolutions_alone_gives_maps_and_no_logits():
    tower = make_tower("torchvision_convolutions", num_classes=0, width=0.1)
    mesh = sharding.make_mesh(data=1, tower=1)
    with pytest.raises(UsageError, match="no classifier: its last layer is conv5"):
        forwards.make_forward(tower, mesh)
    images = jnp.zeros((2, 224, 224, 3))
    maps = jax.eval_shape(forwards.make_features(tower, mesh, "conv5"), initial(tower, 224), {}, images)
    assert maps.shape == (2, 6, 6, 25)
    with pytest.raises(UsageError, match="leaves conv1 without features"):
        make_tower("torchvision_convolutions", num_classes=0, width=0.001)


def test_inverted_dropout_scales_in_training():
    x = jnp.ones((4, 1000))
    mask = layers.dropout_mask(jax.random.key(0), jnp.arange(4), 1000, 0.5)
    y = layers.dropout(x, 0.5, mask, inverted=True)
    assert set(np.unique(y)) == {0.0, 2.0}
    assert np.array_equal(layers.dropout(x, 0.5, None, inverted=True), x)


def test_dropout_keeps_its_share_and_follows_the_row():
    mask = layers.dropout_mask(jax.random.key(0), jnp.arange(64), 1000, 0.5)
    assert abs(float(mask.mean()) - 0.5) < 0.01
    assert np.array_equal(layers.dropout_mask(jax.random.key(0), jnp.arange(32, 64), 1000, 0.5), mask[32:])
    assert len({row.tobytes() for row in np.asarray(mask)}) == 64


def test_he_initialisation_of_a_local_layer_counts_one_place():
    params = initial(make_tower("cifar_13pct", num_classes=10, he_init=True), 24)
    assert np.std(params["local3"]["kernel"]) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    whole = initial(make_tower("original", num_classes=5, width=0.05, he_init=True), 67)
    assert not np.any(whole["fc6"]["bias"]), "and not 1, as the recipe has it"


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"torchvision_convolutions"}))
def test_fewer_than_two_classes(recipe):
    with pytest.raises(UsageError, match="number of classes is 1, and a classifier needs"):
        make_tower(recipe, num_classes=1)


def test_without_conv3_the_network_is_that_without_conv4():
    """But for the first value of a bias, so that experiments with He's initial values need one of the two."""
    third, fourth = (recipes.layers_of(f"drop_conv{number}") for number in (3, 4))
    assert [dataclasses.replace(layer, name="", bias=0) for layer in third] == [
        dataclasses.replace(layer, name="", bias=0) for layer in fourth
    ]
    assert {layer.name for layer in third} ^ {layer.name for layer in fourth} == {"conv3", "conv4"}


def test_batch_norm_starts_at_the_values_of_he():
    tower = make_tower("batch_norm", num_classes=5)
    conv2 = next(layer for layer in tower.layers if layer.name == "conv2")
    assert tower.he_init
    assert tower.kernel_deviation(conv2, (5, 5, 48, 128)) == pytest.approx(math.sqrt(2 / (5 * 5 * 48)))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import recipes, sharding
from alexnet_jax.network.recipes import ORIGINAL, layers_of
from alexnet_jax.network.tower import Tower
from tests import small


def shapes(tower: Tower, image_size: int):
    return small.shapes(tower, image_size)[0]


def test_the_network_of_2012_has_its_parameters():
    params = shapes(Tower(ORIGINAL, num_classes=1000), 224)
    counts = {name: sharding.count_params(leaves) for name, leaves in params.items()}
    # layers-145.cfg; 60 million in the paper
    assert counts == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    assert sharding.count_params(params) == 60_965_224


def test_initial_values_are_those_of_the_configuration():
    tower = Tower(ORIGINAL, num_classes=10)
    params = jax.jit(lambda key: forwards.init_params(tower, key, 67))(jax.random.key(0))
    for layer in ORIGINAL:
        kernel, bias = params[layer.name]["kernel"], params[layer.name]["bias"]
        assert float(kernel.std()) == pytest.approx(layer.std, rel=0.03)
        assert bool((bias == layer.bias).all())
    assert not bool((params["conv1"]["kernel"][0] == params["conv1"]["kernel"][1]).any())


def test_flax_s_init_draws_from_the_same_distribution():
    tower = Tower(layers_of("original", width=0.25), num_classes=10)
    params = jax.jit(lambda key: tower.init(key, jnp.zeros((1, 67, 67, 3)), train=False)["params"])(jax.random.key(0))
    ours = small.shapes(tower, 67)[0]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, ours)
    for layer in tower.layers:
        assert float(params[layer.name]["kernel"].std()) == pytest.approx(layer.std, rel=0.1)
        assert bool((params[layer.name]["bias"] == layer.bias).all())


def test_layers_have_the_sizes_of_the_paper():
    tower = Tower(ORIGINAL, num_classes=10)
    params = shapes(tower, 224)
    mesh = sharding.make_mesh(data=1, tower=1)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    text = jax.jit(forwards.make_forward(tower, mesh)).lower(params, {}, images).as_text()
    for size in ("55x55x48x", "27x27x128x", "13x13x192x", "6x6x128x"):
        assert size in text


def test_each_tower_draws_dropout_masks_of_its_own():
    tower = Tower(layers_of("original", width=0.05), num_classes=4, he_init=True)
    params = jax.jit(lambda key: forwards.init_params(tower, key, 67))(jax.random.key(0))
    twins = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), params)
    half = twins["fc8"]["kernel"].shape[1] // 2
    own = twins["fc8"]["kernel"][0].at[half:].set(0)  # so that each tower's logits come of its own units alone
    twins["fc8"]["kernel"] = jnp.stack([own, jnp.roll(own, half, axis=0)])
    forward = jax.jit(forwards.make_forward(tower, sharding.make_mesh(data=1, tower=2)))
    images = jax.random.normal(jax.random.key(1), (2, 67, 67, 3))
    first, second = jnp.split(forward(twins, {}, images, None)[0], 2, axis=1)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    first, second = jnp.split(forward(twins, {}, images, jax.random.key(2))[0], 2, axis=1)
    assert not np.allclose(first, second, rtol=1e-2)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_any_number_of_classes(classes: int):
    tower = Tower(layers_of("original", width=0.05), num_classes=classes)
    params = jax.jit(lambda key: forwards.init_params(tower, key, 67))(jax.random.key(0))
    forward = forwards.make_forward(tower, sharding.make_mesh(data=1, tower=2))
    logits, _ = jax.jit(forward)(params, {}, jnp.ones((2, 67, 67, 3), jnp.float32))
    assert logits.shape == (2, classes)


def test_too_small_images_name_the_layer():
    tower = Tower(layers_of("original", width=0.05), num_classes=2)
    with pytest.raises(UsageError, match="the pooling after conv2 is given 1x1 pixels"):
        shapes(tower, 16)


def test_unknown_recipe_lists_the_known():
    with pytest.raises(UsageError, match=r"no recipe 'orginal'; known: .*original"):
        layers_of("orginal")
    with pytest.raises(UsageError, match="leaves conv1 without features"):
        layers_of("original", width=0.01)


# Deviation of kernels and first value of biases: K/models/bvlc_alexnet/train_val.prototxt,
# K/models/bvlc_reference_caffenet/train_val.prototxt, A/example-layers/layers-conv-local-13pct.cfg.
INITIAL = {
    "original": {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0), "conv4": (0.03, 1), "conv5": (0.03, 1),
        "fc6": (0.01, 1), "fc7": (0.01, 1), "fc8": (0.01, 0),
    },
    "six_conv": {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0), "conv4": (0.03, 1), "conv5": (0.03, 1),
        "conv6": (0.03, 1), "fc6": (0.01, 1), "fc7": (0.01, 1), "fc8": (0.01, 0),
    },
    "bvlc": {
        "conv1": (0.01, 0), "conv2": (0.01, 0.1), "conv3": (0.01, 0), "conv4": (0.01, 0.1), "conv5": (0.01, 0.1),
        "fc6": (0.005, 0.1), "fc7": (0.005, 0.1), "fc8": (0.01, 0),
    },
    "caffenet": {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.01, 0), "conv4": (0.01, 1), "conv5": (0.01, 1),
        "fc6": (0.005, 1), "fc7": (0.005, 1), "fc8": (0.01, 0),
    },
    "cifar_13pct": {
        "conv1": (0.0001, 0), "conv2": (0.01, 0), "local3": (0.04, 0), "local4": (0.04, 0), "fc10": (0.01, 0),
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", INITIAL)
def test_initial_values_of_other_recipes(recipe: str):
    assert {layer.name: (layer.std, layer.bias) for layer in recipes.layers_of(recipe)} == INITIAL[recipe]


def test_torchvisions_network_starts_with_pytorchs_deviations():
    """Uniform within 1 / sqrt(inputs), which has the deviation 1 / sqrt(3 inputs)."""
    inputs = dict(conv1=363, conv2=1600, conv3=1728, conv4=3456, conv5=2304, fc6=9216, fc7=4096, fc8=4096)
    found = {layer.name: (layer.std, layer.bias) for layer in recipes.layers_of("torchvision")}
    assert found == {name: (pytest.approx((3 * count) ** -0.5), 0) for name, count in inputs.items()}

"""Every network against its reference, at the full geometry."""

import jax
import numpy as np
import pytest

from alexnet_jax.network import forward as forwards
from alexnet_jax.network import sharding
from alexnet_jax.network.recipes import RECIPES
from alexnet_jax.network.tower import make_tower
from tests import small
from tests.reference import network, weights

CLASSES = 10


def params_of(tower, size, rng):
    """Parameters that keep signals of about 100 through all layers, so that norms and biases count."""
    shapes = small.shapes(tower, size)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape, np.float32)
        match path[-1].key:
            case "kernel":
                local = path[-2].key.startswith("local")
                return values * np.float32(np.sqrt(2 / np.prod(leaf.shape[3 if local else 1 : -1])))
            case "scale" | "variance":
                return np.exp(values)
        return values * np.float32(10)

    return jax.tree_util.tree_map_with_path(draw, shapes)


FULL = (
    "original",
    "bvlc",
    "torchvision",
)  # as wide as they are; others have a quarter of the maps, and images as large


def test_every_recipe_has_a_reference():
    assert set(network.NETWORKS) == set(RECIPES)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_logits_agree_with_the_reference(name):
    size, rng = network.SIZES[name], np.random.default_rng(0)
    is_full = name in FULL or name.startswith("cifar")
    tower = make_tower(name, num_classes=CLASSES, width=1.0 if is_full else 0.25)
    params, batch_stats = params_of(tower, size, rng)
    image = rng.normal(0, 60, (1, size, size, 3)).astype(np.float32)
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])

    last = forwards.make_features(tower, mesh, tower.layers[-1].name)  # the logits, or the maps without a classifier
    found = jax.jit(last, compiler_options=forwards.compile_options(mesh))(params, batch_stats, image)[0]

    params |= {layer: params[layer] | averages for layer, averages in batch_stats.items()}
    expected = network.NETWORKS[name](image[0].transpose(2, 0, 1).astype(np.float64), weights.of_2012(params, side=6))
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, -1), rtol=0, atol=1e-5 * np.abs(expected).max())

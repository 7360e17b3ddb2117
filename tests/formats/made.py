"""Trained networks that no training made: random weights, odd means, any recipe."""

import dataclasses
import functools

import jax
import numpy as np

from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.experiment import build
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.network.forward import init_variables
from alexnet_jax.network.sharding import make_mesh, state_shardings
from alexnet_jax.trained import Trained


def network(recipe="original", *, pixel_scale=(1 / 60, 1 / 50, 1 / 70), **options):
    """A network whose biases, statistics and pixels are random; its probabilities differ from picture to picture."""
    return _network(recipe, pixel_scale=tuple(map(float, pixel_scale)), **options)


@functools.cache
def _network(
    recipe, *, pixel_scale, classes=5, width=0.05, crop_size=67, mesh=(1, 1), bfloat16=False, each_image=False
):
    from tests.configs import tiny

    config = tiny.get_config()
    config.network.update(recipe=recipe, width=width, he_init=True, bfloat16=bfloat16)
    config.dataset.update(classes=classes or None, crop_size=crop_size)
    settings = dataclasses.replace(read_settings(config), name=recipe)
    tower = build.build_tower(settings, classes)
    rng = np.random.default_rng(0)
    params, batch_stats = jax.device_get(jax.jit(lambda key: init_variables(tower, key, crop_size))(jax.random.key(0)))
    params = {
        layer: {
            leaf: array if leaf == "kernel" else array + np.float32(0.1) * rng.standard_normal(array.shape, np.float32)
            for leaf, array in leaves.items()
        }
        for layer, leaves in params.items()
    }
    last = tower.layers[-1].name
    params[last] |= {"kernel": params[last]["kernel"] * np.float32(0.25)}  # else probabilities are 0 and 1
    batch_stats = jax.tree.map(lambda leaf: leaf + rng.random(leaf.shape, np.float32), batch_stats)
    on = make_mesh(data=mesh[0], tower=mesh[1])
    size = crop_size + 6
    return Trained(
        name="made", step=12, settings=settings, tower=tower, mesh=on,
        params=jax.device_put(params, state_shardings(params, on)),
        batch_stats=jax.device_put(batch_stats, state_shardings(batch_stats, on)),
        preprocessing=Preprocessing(
            tuple(f"class {i} ä|b" for i in range(classes)), size, crop_size, each_image=each_image,
            mean_image=rng.uniform(90, 130, (size, size, 3)).astype(np.float32),
            pixel_scale=np.array(pixel_scale, np.float32),
        ),
    )  # fmt: skip


def squares(trained, count=3):
    """Pictures as a data set stores them: of coloured tiles, so that they differ for a network."""
    size = trained.preprocessing.image_size
    tiles = np.random.default_rng(1).integers(0, 256, (count, -(-size // 9), -(-size // 9), 3), np.uint8)
    return tiles.repeat(9, axis=1).repeat(9, axis=2)[:, :size, :size]


def crops(trained, pictures):
    edge = (trained.preprocessing.image_size - trained.preprocessing.crop_size) // 2
    end = edge + trained.preprocessing.crop_size
    return np.ascontiguousarray(pictures[:, edge:end, edge:end])

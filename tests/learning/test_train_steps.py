"""Several updates in one program, on data that stay on the devices, beside single updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data import resident
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.filling import Randomness, TrainPlan
from alexnet_jax.network.sharding import batch_sharding, make_mesh, replicated
from alexnet_jax.network.tower import make_tower
from tests import small

SIZE, CROP, BATCH, CLASSES, UPDATES = 75, 67, 4, 5, 4


def setting(data: int, tower: int):
    """Compiled steps, a split on the devices, and the crops of some batches."""
    mesh = make_mesh(data=data, tower=tower)
    cut = functools.partial(resident.cut, crop_size=CROP, jitter=True)
    steps = small.steps(
        make_tower("original", num_classes=CLASSES, width=0.04, he_init=True), mesh, image_size=CROP, cut=cut
    )
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, SIZE, SIZE, 3), np.uint8), rng.integers(0, CLASSES, 20, np.int32)
    split = jax.device_put(resident.Resident(jnp.asarray(images), jnp.asarray(labels)), replicated(mesh))
    plan = TrainPlan(batch_size=BATCH, shard=Shard(), crop_size=CROP, seed=0, rotation=5.0, scale=0.0, crop_group=1)
    crops = resident.draw_crops(Randomness(0, 20), plan, steps=range(UPDATES), image_size=SIZE)
    key = jax.jit(lambda: jax.random.key(0), out_shardings=replicated(mesh))()
    return mesh, steps, split, crops, key


def run(steps, split, crops, key, *counts: int):
    """The state and the losses after blocks of so many updates."""
    state, losses, first = steps.init(key), [], 0
    for count in counts:
        rows = [*range(first, first + count), *[0] * (UPDATES - count)]  # rows beyond the count are not read
        block = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), crops)
        state, metrics = steps.train_steps(state, split, block, jnp.int32(count), key)
        losses += np.asarray(metrics.loss[:count]).tolist()
        first += count
    return jax.device_get(state), losses


def test_a_block_of_updates_takes_the_memory_of_its_state():
    _, steps, split, crops, key = setting(1, 1)
    state = steps.init(key)
    text = steps.train_steps.lower(state, split, jax.tree.map(jnp.asarray, crops), jnp.int32(1), key).as_text()
    assert text.count("tf.aliasing_output") + text.count("jax.buffer_donor") == len(jax.tree.leaves(state))


@pytest.mark.parametrize("layout", [(1, 1), (2, 2)])
def test_blocks_of_any_length_end_with_the_same_bits_as_single_updates_and_disk(layout):
    mesh, steps, split, crops, key = setting(*layout)
    state, losses = run(steps, split, crops, key, UPDATES)
    for counts in ((1,) * UPDATES, (3, 1)):
        other, others = run(steps, split, crops, key, *counts)
        assert others == losses
        jax.tree.map(np.testing.assert_array_equal, other, state)
    assert int(state.step) == UPDATES

    single, singles = steps.init(key), []
    cut = jax.jit(functools.partial(resident.cut, crop_size=CROP, jitter=True))
    for number in range(UPDATES):
        drawn = resident.Crops(*(leaf[number] for leaf in crops))
        batch = jax.device_put(cut(split, drawn), batch_sharding(mesh))
        single, metrics = steps.train_step(single, batch, key)
        singles.append(float(metrics.loss))
    np.testing.assert_allclose(losses, singles, rtol=1e-4)

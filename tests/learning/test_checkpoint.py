import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.learning.checkpoint import Checkpoints
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.step import init_state
from alexnet_jax.network import layout

OPTIMIZER = krizhevsky_sgd(
    {"conv1": {"kernel": piecewise([(0, 0.1)]), "bias": piecewise([(0, 0.1)])}}, momentum=0.9, weight_decay=0.0
)


def state_of(value: float, mesh):
    params = {"conv1": {"kernel": jnp.full((2, 3, 4), float(value)), "bias": jnp.arange(2.0).reshape(2, 1) + value}}
    state = init_state(params, OPTIMIZER)
    return jax.device_put(state, layout.state_shardings(state, mesh))


def target_of(state, mesh):
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        layout.state_shardings(state, mesh),
    )


@pytest.fixture
def checkpoints(tmp_path: Path):
    kept = Checkpoints(epath.Path(tmp_path / "checkpoints"), keep_last=3)
    yield kept
    kept.close()


def test_the_last_three_and_the_best_are_kept(checkpoints: Checkpoints):
    mesh = layout.make_mesh(data=1, tower=2)
    assert checkpoints.best_step() is None
    for step, top1 in [(1, 0.5), (2, 0.2), (3, 0.4), (4, None), (5, 0.3), (6, 0.6)]:
        checkpoints.save(step, state_of(step, mesh), top1=top1)
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5, 6]
    assert checkpoints.best_step() == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2)])
def test_a_state_comes_back_on_any_layout(checkpoints: Checkpoints, shape: tuple[int, int]):
    state = state_of(3.5, layout.make_mesh(data=1, tower=2))
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    target = target_of(state, layout.make_mesh(data=shape[0], tower=shape[1]))
    restored = checkpoints.restore(7, target)
    for a, b, wanted in zip(*map(jax.tree.leaves, (state, restored, target)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.sharding == wanted.sharding
    part = checkpoints.restore(7, {"params": target.params})
    np.testing.assert_array_equal(part["params"]["conv1"]["bias"], state.params["conv1"]["bias"])


def test_a_damaged_checkpoint_is_named(checkpoints: Checkpoints, tmp_path: Path):
    mesh = layout.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh)
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    for file in (tmp_path / "checkpoints/7/default/d").iterdir():
        file.write_bytes(file.read_bytes()[:10])
    for file in (tmp_path / "checkpoints/7/default/ocdbt.process_0/d").iterdir():
        file.write_bytes(file.read_bytes()[:10])
    name = re.escape(str(tmp_path / "checkpoints/7"))
    with pytest.raises(UsageError, match=f"the checkpoint {name} cannot be read"):
        checkpoints.restore(7, target_of(state, mesh))

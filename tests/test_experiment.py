from collections.abc import Callable

import pytest

from alexnet_jax import experiment
from alexnet_jax.errors import UsageError
from alexnet_jax.settings import read_settings


@pytest.mark.parametrize(
    ("batch_size", "asked", "shape"),
    [
        (32, {}, (2, 2)),  # four devices of a CPU: a pair of towers takes two
        (31, {}, (1, 2)),  # the most pairs that divide the batch
        (32, {"mesh.tower": 1}, (4, 1)),
        (30, {"mesh.tower": 1}, (3, 1)),
        (32, {"mesh.data": 1}, (1, 2)),
        (32, {"network.recipe": "one_tower"}, (4, 1)),
        (32, {"mesh.data": 1, "mesh.tower": 1}, (1, 1)),
    ],
)
def test_what_the_mesh_leaves_open_is_chosen(tiny_config: Callable, batch_size: int, asked: dict, shape: tuple):
    mesh = experiment.build_mesh(read_settings(tiny_config(batch_size=batch_size, **asked)))
    assert (mesh.shape["data"], mesh.shape["tower"]) == shape


def test_a_batch_that_the_mesh_cannot_divide_is_refused(tiny_config: Callable):
    settings = read_settings(tiny_config(batch_size=31, **{"mesh.data": 2}))
    with pytest.raises(UsageError, match="batch_size is 31 and cannot be divided by the mesh's data axis of 2"):
        experiment.build_mesh(settings)

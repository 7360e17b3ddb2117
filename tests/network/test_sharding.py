"""Copies of batches to devices."""

import jax
import numpy as np
import pytest

from alexnet_jax.network import sharding
from tests import small


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_batch_that_is_copied_in_pieces_is_the_same(rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharding, "IN_PIECES", ("cpu",))
    monkeypatch.setattr(sharding, "SMALLEST_PIECE", 64)
    joined = []
    join = sharding._join
    monkeypatch.setattr(sharding, "_join", lambda pieces: joined.append(len(pieces)) or join(pieces))
    mesh, batch = sharding.make_mesh(data=1, tower=1), small.batch(rows, image_size=9)
    placed = sharding.put_batch(batch, mesh)
    assert joined[:1] == ([min(rows, sharding.PIECES)] if rows > 1 else [])
    for found, expected in zip(placed, batch, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert isinstance(found, jax.Array) and found.sharding == sharding.batch_sharding(mesh)


def test_pieces_are_for_a_device_that_has_all_of_a_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharding, "IN_PIECES", ("cpu",))
    monkeypatch.setattr(sharding, "SMALLEST_PIECE", 64)
    monkeypatch.setattr(sharding, "_join", None)
    mesh, batch = sharding.make_mesh(data=2, tower=1), small.batch(8, image_size=9)
    np.testing.assert_array_equal(sharding.put_batch(batch, mesh).image, batch.image)

"""Copies of batches to devices."""

from types import SimpleNamespace
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from alexnet_jax.errors import UsageError
from alexnet_jax.network import sharding
from tests import small


def mesh_of(*rows: tuple[int, ...]) -> Mock:
    """A mesh by the processes of its devices: a row for each part of the batch, a column for each tower."""
    devices = np.array([[SimpleNamespace(process_index=process) for process in row] for row in rows])
    return Mock(Mesh, devices=devices, shape={sharding.DATA: len(rows), sharding.TOWER: len(rows[0])})


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([(0,)] * 4 + [(1,)] * 4, [(0, 2), (1, 2)]),  # two machines of four GPUs, both towers on each
        ([(0,), (1,), (2,)], [(0, 3), (1, 3), (2, 3)]),
        ([(0, 0), (0, 0), (1, 1), (1, 1)], [(0, 2), (1, 2)]),
        ([(0, 1), (2, 3)], [(0, 2), (0, 2), (1, 2), (1, 2)]),  # the towers of a pair in two processes: the same images
        ([(0, 0)], [(0, 1)]),
    ],
)
def test_the_part_of_a_process_follows_from_its_devices(rows, parts, monkeypatch: pytest.MonkeyPatch):
    for process, part in enumerate(parts):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert sharding.place_on_data_axis(mesh_of(*rows)) == part


@pytest.mark.parametrize(
    ("process", "rows"),
    [(0, [(0,), (0,), (1,)]), (1, [(0, 0), (0, 1), (1, 1)]), (1, [(0,), (1,), (1,), (2,)])],
)
def test_parts_that_overlap_are_one_error(process: int, rows, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    with pytest.raises(UsageError, match=f"data={len(rows)} x tower={len(rows[0])} does not lie evenly on 1 processes"):
        sharding.place_on_data_axis(mesh_of(*rows))


def test_a_mesh_that_takes_more_of_one_process_is_one_error():
    devices = [Mock(jax.Device, process_index=number // 2, id=number, platform="cpu") for number in range(4)]
    with pytest.raises(UsageError, match="takes 3 devices, and the 2 processes, with 2, 2, cannot each give the same"):
        sharding.make_mesh(data=3, tower=1, devices=devices)
    more = Mock(jax.Device, process_index=2, id=9, platform="cpu")
    with pytest.raises(UsageError, match="takes 2 devices, and the 3 processes, with 2, 1, 1, cannot each give"):
        sharding.make_mesh(data=2, tower=1, devices=[*devices[:3], more])


def test_a_mesh_takes_as_many_devices_of_each_process():
    devices = [Mock(jax.Device, process_index=number // 4, id=number, platform="cpu") for number in range(8)]
    mesh = sharding.make_mesh(data=2, tower=2, devices=devices)
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1], [4, 5]]


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


def test_the_pieces_of_a_process_are_a_part_of_the_batch(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(jax, "make_array_from_single_device_arrays", lambda shape, *_: made.append(shape))
    mesh = Mock(Mesh, devices=np.array([[SimpleNamespace(platform="gpu")]] * 4), shape={sharding.DATA: 4})
    place = Mock(sharding.NamedSharding, addressable_devices=jax.devices()[:1], mesh=mesh)
    sharding._start(np.zeros((8, 2**20), np.uint8), place)()
    assert made == [(32, 2**20)]


def test_devices_are_in_the_order_of_their_processes():
    devices = [Mock(jax.Device, process_index=n % 2, id=9 - n, platform="cpu") for n in range(4)]
    mesh = sharding.make_mesh(data=4, tower=1, devices=devices)
    assert [(device.process_index, device.id) for device in mesh.devices.flat] == [(0, 7), (0, 9), (1, 6), (1, 8)]


@pytest.mark.parametrize(("count", "platform", "towers"), [(2, "cpu", 2), (3, "cpu", 1), (2, "gpu", 1), (8, "tpu", 1)])
def test_towers_lie_apart_on_a_cpu_alone(count: int, platform: str, towers: int):
    assert sharding.fastest_tower_axis(count, platform) == towers

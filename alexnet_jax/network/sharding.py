"""Meshes of `data` x `tower` devices, the shardings of arrays on them, and putting arrays there."""

import collections
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.network.tower import DATA, TOWER


def make_mesh(*, data: int, tower: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` x `tower` devices; the tower axis is innermost, so that pairs are neighbours.

    Devices stand in the order of their processes, so that a process's examples are one run of the batch.

    Raises:
      UsageError: there are too few devices, or a process would have none of them, or another number than the rest.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if data * tower > len(devices):
        raise UsageError(
            f"a mesh of data={data} x tower={tower} needs {data * tower} devices and there"
            f" {'is' if len(devices) == 1 else 'are'} {len(devices)} ({devices[0].platform}); ask for a smaller mesh"
        )
    mesh = Mesh(np.array(devices[: data * tower]).reshape(data, tower), (DATA, TOWER), axis_types=(AxisType.Auto,) * 2)
    held = collections.Counter(device.process_index for device in mesh.devices.flat)
    per_process = {held[device.process_index] for device in devices}
    if len(per_process) > 1:
        raise UsageError(
            f"a mesh of data={data} x tower={tower} takes {', '.join(f'{n} of process {p}' for p, n in held.items())}'s"
            f" devices, and all {1 + devices[-1].process_index} processes must give as many; ask for another mesh"
        )
    return mesh


def fastest_tower_axis(device_count: int, platform: str) -> int:
    """How many devices a pair of towers should take where the user does not say.

    On a CPU a tower on each of two devices is the fastest layout. On accelerators a chip holds both towers easily, so
    devices serve the data axis.
    """
    return 2 if platform == "cpu" and device_count % 2 == 0 else 1


def param_sharding(mesh: Mesh) -> NamedSharding:
    """A tower's parameters live on the tower's devices; with both on one device, all on all."""
    return NamedSharding(mesh, PartitionSpec(TOWER) if mesh.shape[TOWER] > 1 else PartitionSpec())


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples apart on the data axis; both towers see the same."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every leaf: towers apart where the mesh has a place for each, scalars everywhere."""
    return jax.tree.map(lambda leaf: param_sharding(mesh) if leaf.ndim else replicated(mesh), state)


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's part of a batch of NumPy arrays as part of the global batch on the devices."""
    return jax.tree.map(lambda array: put_local(array, batch_sharding(mesh)), batch)


def put_local(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """This process's part of an array as part of the global array on the devices."""
    with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX counts what is asked for as implicit
        return jax.make_array_from_process_local_data(sharding, array)


def place_on_data_axis(mesh: Mesh) -> tuple[int, int]:
    """This process's part of the batch: number, and how many parts there are.

    It follows from where the process's devices lie on the data axis, not from its number: the towers of a pair may run
    in two processes, and see the same images.

    Raises:
      UsageError: the parts of the processes overlap.
    """
    own = jax.process_index()
    rows = [row for row, pair in enumerate(mesh.devices) if any(device.process_index == own for device in pair)]
    size = len(rows)
    if mesh.shape[DATA] % size or rows[0] % size:
        raise UsageError(
            f"a mesh of data={mesh.shape[DATA]} x tower={mesh.shape[TOWER]} does not lie evenly on"
            f" {jax.process_count()} processes; use as many devices a process, in pairs or one by one"
        )
    return rows[0] // size, mesh.shape[DATA] // size


def put_scalar(value: np.float32, mesh: Mesh) -> jax.Array:
    """A number that all processes have, on every device."""
    return put_local(np.asarray(value), replicated(mesh))


def count_params(params: PyTree) -> int:
    """Numbers in all leaves, those of both towers."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

"""Meshes of `data` x `tower` devices, the shardings of arrays on them, and putting arrays there."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.network.tower import DATA, TOWER


def make_mesh(*, data: int, tower: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` x `tower` devices. The tower axis is innermost, so that the towers of a pair are neighbours.

    All processes give the same number of devices, in the order of the processes, so that the examples of a process are
    successive rows of the batch.

    Args:
      data: devices along the data axis.
      tower: devices along the tower axis, 1 or 2.
      devices: to choose from; None: all devices of all processes.

    Raises:
      UsageError: there are too few devices, or the processes cannot each give the same number.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if data * tower > len(devices):
        raise UsageError(
            f"a mesh of data={data} x tower={tower} needs {data * tower} devices and there"
            f" {'is' if len(devices) == 1 else 'are'} {len(devices)} ({devices[0].platform}); ask for a smaller mesh"
        )
    groups = [list(group) for _, group in itertools.groupby(devices, lambda device: device.process_index)]
    each, left = divmod(data * tower, len(groups))
    if left or each > min(map(len, groups)):
        raise UsageError(
            f"a mesh of data={data} x tower={tower} takes {data * tower} devices, and the {len(groups)} processes, with"
            f" {', '.join(str(len(group)) for group in groups)}, cannot each give the same number; ask for another mesh"
        )
    chosen = np.array([device for group in groups for device in group[:each]]).reshape(data, tower)
    return Mesh(chosen, (DATA, TOWER), axis_types=(AxisType.Auto,) * 2)


def fastest_tower_axis(device_count: int, platform: str) -> int:
    """Devices for a pair of towers, where the user does not choose.

    On a CPU updates are fastest with a tower on each of two devices; evaluations take as long on one. A GPU or TPU
    holds both towers easily, so its devices serve the data axis.
    """
    return 2 if platform == "cpu" and device_count % 2 == 0 else 1


def param_sharding(mesh: Mesh) -> NamedSharding:
    """Parameters of a tower are on the devices of this tower. With both towers on a device, every device has all."""
    return NamedSharding(mesh, PartitionSpec(TOWER) if mesh.shape[TOWER] > 1 else PartitionSpec())


def replicated(mesh: Mesh) -> NamedSharding:
    """An array that is the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are divided over the data axis; both towers see the same examples."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def stacked_batch_sharding(mesh: Mesh) -> NamedSharding:
    """As `batch_sharding`, for several batches along a first axis."""
    return NamedSharding(mesh, PartitionSpec(None, DATA))


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every leaf: arrays as parameters, scalars on every device."""
    return jax.tree.map(lambda leaf: param_sharding(mesh) if leaf.ndim else replicated(mesh), state)


def placed(abstract: PyTree, mesh: Mesh) -> PyTree:
    """Shapes without values, with the shardings that `state_shardings` gives them."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        state_shardings(abstract, mesh),
    )


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """The global batch on the devices, from the NumPy arrays of this process's part."""
    return start_copy(batch, mesh)()


def start_copy(batch: PyTree, mesh: Mesh) -> Callable[[], PyTree]:
    """Starts to copy a batch to the devices; the result is a function that gives the batch there, as `put_batch`.

    A GPU overlaps a copy with an update only if the copy was started first. So start the copy, then start the update,
    then call the function.
    """
    leaves, structure = jax.tree.flatten(batch)
    started = [_start(array, batch_sharding(mesh)) for array in leaves]
    return lambda: jax.tree.unflatten(structure, [finish() for finish in started])


PIECES = 4  # into which a large array is divided for a GPU: JAX copies each by another thread
SMALLEST_PIECE = 1 << 20  # bytes
IN_PIECES = ("gpu",)  # platforms


def _start(array: np.ndarray, sharding: NamedSharding) -> Callable[[], jax.Array]:
    """Starts to copy this process's part of a global array."""
    device, *others = sharding.addressable_devices
    count = min(PIECES, array.nbytes // SMALLEST_PIECE, len(array))
    if others or sharding.mesh.devices.flat[0].platform not in IN_PIECES or count < 2:
        whole = put_local(array, sharding)
        return lambda: whole
    bounds = [len(array) * i // count for i in range(count + 1)]
    pieces = [jax.device_put(array[first:end], device) for first, end in itertools.pairwise(bounds)]
    shape = (len(array) * sharding.mesh.shape[DATA], *array.shape[1:])
    return lambda: jax.make_array_from_single_device_arrays(shape, sharding, [_join(pieces)])


@jax.jit
def _join(pieces: list[jax.Array]) -> jax.Array:
    return jnp.concatenate(pieces)


def put_local(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array on the devices, from this process's part."""
    with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX counts this transfer as implicit
        return jax.make_array_from_process_local_data(sharding, array)


def place_on_data_axis(mesh: Mesh) -> tuple[int, int]:
    """The number of this process's part of the batch, and the number of parts.

    Both follow from the place of the process's devices on the data axis, not from the process's number: the towers of a
    pair may run in two processes, which then see the same images.

    Raises:
      UsageError: the parts of the processes overlap.
    """
    own = jax.process_index()
    rows = [row for row, pair in enumerate(mesh.devices) if any(device.process_index == own for device in pair)]
    size = len(rows)
    if mesh.shape[DATA] % size or rows[0] % size:
        raise UsageError(
            f"a mesh of data={mesh.shape[DATA]} x tower={mesh.shape[TOWER]} does not lie evenly on"
            f" {jax.process_count()} processes; use the same number of devices in each process, in pairs or one by one"
        )
    return rows[0] // size, mesh.shape[DATA] // size


def put_scalar(value: np.float32 | np.int32, mesh: Mesh) -> jax.Array:
    """A number on every device; all processes give the same number."""
    return put_local(np.asarray(value), replicated(mesh))


def count_params(params: PyTree) -> int:
    """How many numbers all leaves hold, of both towers."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

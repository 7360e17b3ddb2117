"""Where the towers run: a mesh of `data` x `tower`, the sharding of the parameters, and the forward function.

Parameters have a leading axis of one entry a tower. On one device `vmap` runs the pair; on two, `shard_map` gives each
its own. It is manual over the tower axis alone, so that the compiler handles `data` and dropout masks are drawn for the
global batch: the numbers do not depend on the layout.
"""

import collections
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.network import native
from alexnet_jax.network.tower import TOWER, Tower

DATA = "data"

Params: TypeAlias = PyTree[Float[Array, "tower ..."]]
Forward: TypeAlias = Callable[[Params, Float[Array, "B h w 3"], PRNGKeyArray | None], Float[Array, "B classes"]]


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


# For the CPU's compiler: option, value, and what training is without it. Experimental in jaxlib 0.10.
# YNNPACK runs matrix products and, where `native` has none, turns gradients of convolutions into plain ones, which take
# a twentieth of the default lowering's time. The order of operations that needs the least memory spares a tenth of an
# update's, and the page faults with it.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": ("LIBRARY_FUSION_TYPE_DOT", "several times as slow"),
    "xla_cpu_scheduler_type": ("CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED", "larger in memory"),
}


def compile_options(mesh: Mesh) -> dict[str, str] | None:
    """Compiler options for this mesh's platform: on the CPU those of `CPU_OPTIONS` that this jaxlib knows."""
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return {name: value for name, (value, without) in CPU_OPTIONS.items() if _known(name, value, without)} or None


@functools.cache
def _known(option: str, value: str, without: str) -> bool:
    """Whether this jaxlib takes the option; warns once where it does not."""
    try:
        compiled = jax.jit(lambda x: x, compiler_options={option: value})
        compiled.lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"training on a CPU is {without} with this jaxlib: {reason}", stacklevel=3)
        return False
    return True


def init_params(tower: Tower, key: PRNGKeyArray, image_size: int) -> Params:
    """Fresh parameters: each leaf `[towers, ...]`, Gaussian kernels and constant biases.

    `Tower`'s own initial values are scales: of a kernel its standard deviation, of a bias its value. All kernels of a
    tower come out of one draw, since every draw of its own costs a second of compilation.
    """

    def scales_of(_: Array) -> PyTree:
        images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
        return tower.init(key, images, train=False)["params"]

    scales = jax.vmap(scales_of, axis_name=TOWER)(jnp.arange(tower.towers))
    layers = {name: leaves for name, leaves in scales.items() if "kernel" in leaves}
    kernels = [leaves["kernel"] for leaves in layers.values()]
    ends = list(itertools.accumulate(kernel[0].size for kernel in kernels))
    draws = jax.vmap(lambda index: jax.random.normal(jax.random.fold_in(key, index), (ends[-1],)))
    parts = jnp.split(draws(jnp.arange(tower.towers)), ends[:-1], axis=1)
    return scales | {
        name: leaves | {"kernel": leaves["kernel"] * part.reshape(leaves["kernel"].shape)}
        for (name, leaves), part in zip(layers.items(), parts, strict=True)
    }


def make_forward(tower: Tower, mesh: Mesh) -> Forward:
    """`forward(params, images, key) -> logits [B, classes]` on this mesh; key None: evaluation, no dropout.

    Raises:
      UsageError: the mesh has more places on its tower axis than the network has towers, or the network cannot run
        on both axes at once.
    """
    tower = tower.clone(division=native.Division(mesh, DATA) if mesh.shape[DATA] > 1 else None)

    def one_tower(params, images, key):
        rngs = None if key is None else {"dropout": jax.random.fold_in(key, jax.lax.axis_index(TOWER))}
        return tower.apply({"params": params}, images, train=key is not None, rngs=rngs)

    def side_by_side(params, images, key=None):
        logits = jax.vmap(one_tower, in_axes=(0, None, None), out_axes=1, axis_name=TOWER)(params, images, key)
        return logits.reshape(images.shape[0], -1)

    def one_each(params, images, key=None):
        def local(params, images, key):
            return one_tower(jax.tree.map(lambda leaf: leaf.squeeze(0), params), images, key)

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(PartitionSpec(TOWER), PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec(None, TOWER),
            axis_names={TOWER},
        )(params, images, key)

    places = mesh.shape[TOWER]
    if places not in (1, tower.towers):
        raise UsageError(f"the mesh has {places} places for towers and the network {tower.towers} tower; use tower=1")
    if places > 1 and mesh.shape[DATA] > 1 and any("batch_norm" in layer.then for layer in tower.layers):
        # Gradients come out wrong there, by tens of per cent, with jaxlib 0.10.2: seen with pooling's strided slices
        # after a mean over a divided batch, in a program manual over the tower axis alone. The cause is not known.
        raise UsageError(
            f"batch norm cannot run on a mesh of data={mesh.shape[DATA]} x tower={places}; use config.mesh.tower=1"
        )
    run = one_each if places > 1 else side_by_side

    def forward(params, images, key=None):
        # With an odd number of classes the last tower has a logit too many.
        return run(params, images, key)[:, : tower.num_classes]

    return forward

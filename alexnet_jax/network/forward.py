"""Where the towers run: a mesh of `data` x `tower`, the sharding of the parameters, and the forward function.

Parameters have a leading axis of one entry a tower. On one device `vmap` runs the pair; on two, `shard_map` gives each
its own. It is manual over the tower axis alone, so that the compiler handles `data` and dropout masks are drawn for the
global batch: the numbers do not depend on the layout.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.network import native
from alexnet_jax.network.sharding import DATA
from alexnet_jax.network.tower import TOWER, Tower

Params: TypeAlias = PyTree[Float[Array, "tower ..."]]
Forward: TypeAlias = Callable[[Params, Float[Array, "B h w 3"], PRNGKeyArray | None], Float[Array, "B classes"]]


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

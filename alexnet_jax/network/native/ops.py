"""Operations of JAX that the C kernels of this folder compute where a program runs on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network.native.build import available


def on_cpu(
    name: str,
    plain: Callable[..., Array],
    *inputs: Float[Array, "..."],
    fits: bool = True,
    division: Division | None,
    batched: str = "",
    **constants: float,
) -> Float[Array, "..."]:
    """`plain(*inputs)`, as far as it runs on a CPU computed by the operation of that name.

    Args:
      name: one of `OPERATIONS`.
      plain: the same in JAX, for all other platforms.
      inputs: maps `[batch rows columns channels]`; a convolution's kernel comes last.
      fits: the operation knows the case. Float32 is asked for besides.
      division: how the batch is divided, if it is; the operation is then divided by hand.
      batched: "image": the last input is a kernel; "kernel": the result is one, the sum over the batch.
      constants: the operation's, whole or real as it expects them.
    """
    expected = jax.eval_shape(plain, *inputs)
    shape = expected.shape
    usable = fits and all(x.dtype == jnp.float32 and x.ndim >= 3 and x.size > 0 for x in (expected, *inputs))
    if not usable or not available():
        return plain(*inputs)

    def own(*inputs: Array, shape: tuple[int, ...] = shape) -> Array:
        vmap_method = "sequential" if batched else "broadcast_all"  # maps may have any axes before their last three
        run = jax.ffi.ffi_call(_target(name), jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method=vmap_method)
        y = run(*inputs, **{key: _attribute(constant) for key, constant in constants.items()})
        # Under shard_map JAX would take it for the same on all devices. Where plain's is, since the images are, their
        # gradient is the sum of all devices'.
        varying = frozenset().union(*(_varying(jax.typeof(x)) for x in inputs))
        y = lax.pcast(y, tuple(varying), to="varying") if varying else y
        summed = varying - _varying(expected) - {division.axis if division else None}
        return lax.psum(y, tuple(summed)) if summed else y

    if division is None:
        return lax.platform_dependent(*inputs, cpu=own, default=plain)
    mesh, axis = division

    def part(*inputs: Array) -> Array:
        if batched == "kernel":
            return lax.psum(own(*inputs), axis)
        return own(*inputs, shape=(shape[0] // mesh.shape[axis], *shape[1:]))

    images, kernel = PartitionSpec(axis), PartitionSpec()
    parts = jax.shard_map(
        part,
        mesh=None if jax.sharding.get_abstract_mesh().manual_axes else mesh,  # the one we are in, beside the towers'
        in_specs=(*[images] * (len(inputs) - 1), kernel if batched == "image" else images),
        out_specs=kernel if batched == "kernel" else images,
        axis_names={axis},
    )
    return lax.platform_dependent(*inputs, cpu=parts, default=plain)


def _attribute(constant: float) -> np.int64 | np.float32:
    return np.int64(constant) if isinstance(constant, (int, np.integer)) else np.float32(constant)


def _varying(kind: Any) -> frozenset[str]:
    """The axes under `shard_map` along which an array differs."""
    return kind.manual_axis_type.varying if kind.manual_axis_type else frozenset()

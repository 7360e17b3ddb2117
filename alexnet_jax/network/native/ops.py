"""Calls of the C kernels from JAX, where a program runs on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network.native.build import available, target


def on_cpu(
    name: str,
    plain: Callable[..., Array],
    *inputs: Float[Array, "..."],
    fits: bool = True,
    **attributes: float,
) -> Float[Array, "..."]:
    """`plain(*inputs)`. On a CPU the C kernel `name` computes it.

    The plain form in JAX runs on all other platforms, for types other than float32, for empty arrays, and where the C
    kernels are not loaded. Arrays are local to a device: a kernel knows nothing of a mesh.

    Args:
      name: one of `build.OPERATIONS`.
      plain: the same function in JAX.
      inputs: arrays as the kernel expects them.
      fits: whether the kernel covers this case.
      attributes: of the kernel: an int becomes int64, a float becomes float32.
    """
    expected = jax.eval_shape(plain, *inputs)
    if not fits or any(x.dtype != jnp.float32 or x.size == 0 for x in (expected, *inputs)) or not available():
        return plain(*inputs)

    def kernel(*inputs: Array) -> Array:
        call = jax.ffi.ffi_call(target(name), jax.ShapeDtypeStruct(expected.shape, jnp.float32))
        y = call(*inputs, **{key: _attribute(value) for key, value in attributes.items()})
        # JAX takes the result of a foreign call for the same on all devices of a mesh. It differs where an input does,
        # unless the plain form's does not: that is the gradient of an array that all devices share, and so a sum.
        varying = frozenset().union(*(_varying(jax.typeof(x)) for x in inputs))
        y = lax.pcast(y, tuple(varying), to="varying") if varying else y
        summed = tuple(varying - _varying(expected))
        return lax.psum(y, summed) if summed else y

    return lax.platform_dependent(*inputs, cpu=kernel, default=plain)


def _varying(kind: Any) -> frozenset[str]:
    """The axes under `shard_map` along which an array differs."""
    return kind.manual_axis_type.varying if kind.manual_axis_type else frozenset()


def _attribute(value: float) -> np.int64 | np.float32:
    return np.int64(value) if isinstance(value, (int, np.integer)) else np.float32(value)

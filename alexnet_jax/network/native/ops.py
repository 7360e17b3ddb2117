"""Calls of the native kernels from JAX: in C where a program runs on a CPU, in CUDA where it runs on an NVIDIA GPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network.native import build

CUDA = "cuda"  # the platform; a test runs the kernels on a CPU
CUDA_TYPES = (jnp.float32, jnp.bfloat16)
CUDA_CHANNELS = 4  # a kernel loads as many numbers at once, or twice as many
CUDA_LARGEST = 2**31 - 1  # threads of a kernel
SHARED = 96 << 10  # bytes of shared memory that a block may take; every GPU since 2020 has them


def on_cpu(
    name: str,
    plain: Callable[..., Any],
    *inputs: Float[Array, "..."],
    fits: bool = True,
    **attributes: float,
) -> Any:
    """`plain(*inputs)`. On a CPU the C kernel `name` computes it.

    The plain form in JAX runs on all other platforms, for types other than float32, for empty arrays, and where the C
    kernels are not loaded. Arrays are local to a device: a kernel knows nothing of a mesh.

    Args:
      name: one of `build.OPERATIONS`.
      plain: the same function in JAX, whose result is an array or a tuple of one array.
      inputs: arrays as the kernel expects them.
      fits: whether the kernel covers this case.
      attributes: of the kernel: an int becomes int64, a float becomes float32.
    """
    if not fits or not build.available("cpu"):
        return plain(*inputs)
    expected = jax.eval_shape(plain, *inputs)
    if any(x.dtype != jnp.float32 or x.size == 0 for x in (*jax.tree.leaves(expected), *inputs)):
        return plain(*inputs)
    return lax.platform_dependent(*inputs, cpu=_call(build.target(name), expected, attributes), default=plain)


def faster_on_cpu(form: Callable[..., Any], plain: Callable[..., Any], *inputs: Any) -> Any:
    """`plain(*inputs)`, which a CPU computes in another form in JAX. Exports have the plain form on all platforms."""
    if not build.available("cpu"):
        return plain(*inputs)
    return lax.platform_dependent(*inputs, cpu=form, default=plain)


def on_cuda(
    name: str,
    plain: Callable[..., Any],
    *inputs: Float[Array, "..."],
    fits: bool = True,
    **attributes: float,
) -> Any:
    """`plain(*inputs)`. On an NVIDIA GPU the CUDA kernel `name` computes it.

    The plain form in JAX runs on all other platforms, for types other than float32 and bfloat16, and where the CUDA
    kernels are not loaded.

    Args:
      name: one of `build.CUDA_OPERATIONS`.
      plain: the same function in JAX, whose result is an array or a tuple of arrays.
      inputs: maps of one type, the first `[images, rows, columns, channels]`; a bias is float32.
      fits: whether the kernel covers this case.
      attributes: of the kernel: an int becomes int64, a float becomes float32.
    """
    if not fits or not cuda_fits(inputs[0]):
        return plain(*inputs)
    expected = jax.eval_shape(plain, *inputs)
    kernel = {CUDA: _call(build.cuda_target(name), expected, attributes)}
    return lax.platform_dependent(*inputs, **kernel, default=plain)


def cuda_fits(x: Any) -> bool:
    """Whether CUDA kernels are loaded and cover maps of this shape and type."""
    return (
        build.available("cuda")
        and x.ndim == 4
        and x.dtype in CUDA_TYPES
        and x.shape[-1] % CUDA_CHANNELS == 0
        and 0 < x.size // CUDA_CHANNELS <= CUDA_LARGEST
    )


def _call(target: str, expected: Any, attributes: dict[str, float]) -> Callable[..., Any]:
    """A foreign call with these results: a shape or a tuple of shapes."""
    shapes = jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), expected)

    def kernel(*inputs: Array) -> Any:
        call = jax.ffi.ffi_call(target, shapes, vmap_method="sequential")
        y = call(*inputs, **{key: _attribute(value) for key, value in attributes.items()})
        # JAX assumes that the result of a foreign call is the same on all devices. It varies over the axes of its
        # inputs. Where the plain form's result does not, it is the gradient of a shared array, and is summed.
        varying = frozenset().union(*(_varying(jax.typeof(x)) for x in inputs))

        def placed(y: Array, expected: Any) -> Array:
            y = lax.pcast(y, tuple(varying), to="varying") if varying else y
            summed = tuple(varying - _varying(expected))
            return lax.psum(y, summed) if summed else y

        return jax.tree.map(placed, y if isinstance(expected, Array | jax.ShapeDtypeStruct) else tuple(y), expected)

    return kernel


def _varying(kind: Any) -> frozenset[str]:
    """The axes under `shard_map` along which an array differs."""
    return kind.manual_axis_type.varying if kind.manual_axis_type else frozenset()


def _attribute(value: float) -> np.int64 | np.float32:
    return np.int64(value) if isinstance(value, (int, np.integer)) else np.float32(value)

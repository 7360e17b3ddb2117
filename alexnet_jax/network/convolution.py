"""Convolution with one plain convolution a tower, where `vmap` would make a grouped one.

Under `vmap` over the towers JAX interleaves the channels of all towers, which transposes every activation there and
back, and asks for a convolution in groups. No platform is the better for it: a CPU runs two plain ones in a third of
the time; GPUs and TPUs have their best kernels for plain ones, and there the network is bound by memory, of which each
transposition is a pass. What is left to pay is twice as many kernels, smaller ones, some microseconds each.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network import native


def _one_by_one(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same function; under `vmap` it runs once an entry."""
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def rule(size: int, batched: Sequence[bool], *arrays: Array) -> tuple[Array, bool]:
        entries = [
            mapped(*(array[i] if own else array for array, own in zip(arrays, batched, strict=True)))
            for i in range(size)
        ]
        return jnp.stack(entries), True

    return mapped


def convolution(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "height width c maps"],
    *,
    stride: int,
    padding: Sequence[tuple[int, int]],
    division: native.Division | None = None,
) -> Float[Array, "b out_h out_w maps"]:
    """Cross-correlation, as networks have it; differentiable once, and in reverse alone.

    Args:
      x: the images.
      kernel: of any size; those with sides alike are the faster ones on a CPU.
      stride: pixels between two windows.
      padding: rows of zeros before and after the image, and columns.
      division: how the batch is divided over devices, if it is.
    """

    def plain(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    size, before = kernel.shape[0], padding[0][0]
    fits = kernel.shape[1] == size and 0 <= before == padding[1][0] < size
    on_cpu = functools.partial(native.on_cpu, fits=fits, division=division)

    def of_both(x: Array, kernel: Array) -> Array:
        return on_cpu("convolution", plain, x, kernel, batched="image", stride=stride, pad=before)

    def of_image(x: Array, kernel: Array, dy: Array) -> Array:
        def gradient(dy: Array, kernel: Array) -> Array:
            return jax.vjp(functools.partial(plain, kernel=kernel), x)[1](dy)[0]

        if stride > 1:
            return gradient(dy, kernel)
        return on_cpu("convolution", gradient, dy, kernel, batched="image", stride=1, pad=size - 1 - before, turned=1)

    def of_kernel(x: Array, kernel: Array, dy: Array) -> Array:
        def gradient(x: Array, dy: Array) -> Array:
            return jax.vjp(functools.partial(plain, x), kernel)[1](dy)[0]

        return on_cpu("convolution_gradient", gradient, x, dy, batched="kernel", stride=stride, pad=before)

    @jax.custom_vjp
    def differentiable(x: Array, kernel: Array) -> Array:
        return _one_by_one(of_both)(x, kernel)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return differentiable(x, kernel), (x, kernel)

    def backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        return _one_by_one(of_image)(*kept, dy), _one_by_one(of_kernel)(*kept, dy)

    differentiable.defvjp(forward, backward)
    return differentiable(x, kernel)

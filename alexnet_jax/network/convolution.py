"""Convolution with one plain convolution a tower, where `vmap` would make a grouped one.

Under `vmap` over the towers JAX interleaves the channels of all towers, which transposes every activation there and
back, and asks for a convolution in groups. No platform is the better for it: a CPU runs two plain ones in a third of
the time; GPUs and TPUs have their best kernels for plain ones, and there the network is bound by memory, of which each
transposition is a pass. What is left to pay is twice as many kernels, smaller ones, some microseconds each.

Strides over few channels are taken by blocks of pixels on a CPU (`blocks.py`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from alexnet_jax.network.blocks import by_blocks

FEW = 4  # channels, up to which a CPU loses more by strides than by the zeros in blocks


def _one_by_one(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same function; under `vmap` it runs once an entry."""
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def rule(size: int, batched: Sequence[bool], *arrays: Array) -> tuple[Array, bool]:
        entries = [
            function(*(array[i] if own else array for array, own in zip(arrays, batched, strict=True)))
            for i in range(size)
        ]
        return jnp.stack(entries), True

    return mapped


def convolution(lhs: Array, rhs: Array, window_strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """`lax.conv_general_dilated`; differentiable once, and in reverse alone."""
    plain = functools.partial(lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options)
    blocks = functools.partial(by_blocks, strides=window_strides, padding=padding, **options)

    def chosen(of: Callable[..., Array], *arrays: Array) -> Array:
        if max(window_strides) == 1 or lhs.shape[-1] > FEW:
            return of(plain, *arrays)
        return lax.platform_dependent(*arrays, cpu=functools.partial(of, blocks), default=functools.partial(of, plain))

    def result(convolve: Callable[..., Array], x: Array, kernel: Array) -> Array:
        return convolve(x, kernel)

    def of_image(convolve: Callable[..., Array], x: Array, kernel: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)[0]

    def of_kernel(convolve: Callable[..., Array], x: Array, kernel: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)[0]

    @jax.custom_vjp
    def differentiable(x: Array, kernel: Array) -> Array:
        return _one_by_one(functools.partial(chosen, result))(x, kernel)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return differentiable(x, kernel), (x, kernel)

    def backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        image, kernel = (_one_by_one(functools.partial(chosen, of))(*kept, dy) for of in (of_image, of_kernel))
        return image, kernel

    differentiable.defvjp(forward, backward)
    return differentiable(lhs, rhs)

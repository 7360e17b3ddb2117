"""Convolution with one plain convolution a tower, where `vmap` would make a grouped one.

Under `vmap` over the towers JAX interleaves the channels of all towers, which transposes every activation there and
back, and asks for a convolution in groups. No platform is the better for it: a CPU runs two plain ones in a third of
the time; GPUs and TPUs have their best kernels for plain ones, and there the network is bound by memory, of which each
transposition is a pass. What is left to pay is twice as many kernels, smaller ones, some microseconds each.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


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

    def plain(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **options)

    @jax.custom_vjp
    def differentiable(x: Array, kernel: Array) -> Array:
        return _one_by_one(plain)(x, kernel)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return differentiable(x, kernel), (x, kernel)

    def backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        def of_image(x: Array, kernel: Array, dy: Array) -> Array:
            return jax.vjp(functools.partial(plain, kernel=kernel), x)[1](dy)[0]

        def of_kernel(x: Array, kernel: Array, dy: Array) -> Array:
            return jax.vjp(functools.partial(plain, x), kernel)[1](dy)[0]

        return _one_by_one(of_image)(*kept, dy), _one_by_one(of_kernel)(*kept, dy)

    differentiable.defvjp(forward, backward)
    return differentiable(lhs, rhs)

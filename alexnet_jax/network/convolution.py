"""Convolution with the gradients that a CPU's C kernels compute."""

import functools
from collections.abc import Sequence

import jax
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network.native import ops


def convolution(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "height width c maps"],
    *,
    stride: int,
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b out_h out_w maps"]:
    """Cross-correlation of images with a kernel; differentiable once, in reverse mode.

    Args:
      x: images.
      kernel: of any size. On a CPU the C kernels compute square ones.
      stride: pixels between two windows.
      padding: zeros before and after the rows, and before and after the columns.
    """
    return _convolution(x, kernel, stride, tuple(tuple(sides) for sides in padding))


Padding = tuple[tuple[int, int], ...]


def _plain(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _fits(kernel: Array, padding: Padding) -> bool:
    """Whether the C kernels cover the geometry. Rows and columns after the image are then as many as its size needs."""
    size, before = kernel.shape[0], padding[0][0]
    return kernel.shape[1] == size and 0 <= before == padding[1][0] < size


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    plain = functools.partial(_plain, stride=stride, padding=padding)
    return ops.on_cpu("convolution", plain, x, kernel, fits=_fits(kernel, padding), stride=stride, pad=padding[0][0])


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: Padding, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return _input_gradient(*kept, dy, stride, padding), _kernel_gradient(*kept, dy, stride, padding)


_convolution.defvjp(_forward, _backward)


def _input_gradient(x: Array, kernel: Array, dy: Array, stride: int, padding: Padding) -> Array:
    def plain(dy: Array, kernel: Array) -> Array:
        return jax.vjp(lambda x: _plain(x, kernel, stride, padding), x)[1](dy)[0]

    fits = stride == 1 and _fits(kernel, padding)  # the C kernel convolves `dy` with the kernel turned by 180 degrees
    return ops.on_cpu("convolution_input_gradient", plain, dy, kernel, fits=fits, pad=padding[0][0])


def _kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int, padding: Padding) -> Array:
    def plain(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: _plain(x, kernel, stride, padding), kernel)[1](dy)[0]

    fits = _fits(kernel, padding)
    return ops.on_cpu("convolution_kernel_gradient", plain, x, dy, fits=fits, stride=stride, pad=padding[0][0])

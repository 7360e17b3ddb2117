"""Convolutions: with the gradients of a CPU's C kernels, over blocks of pixels where channels are few, and local."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network.layers import type_of_sums
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


MOST_TERMS = 256  # of a block for the C kernels: with 2,320 their results are off by 9e-6
FEW_CHANNELS = 8  # fewer fill no tensor core: conv1 of three channels took nine times as long on an H200 as over blocks


def _plain(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    if stride > 1 and x.shape[-1] < FEW_CHANNELS:
        (x, kernel), stride, padding = over_blocks(x, kernel, stride=stride, padding=padding), 1, ((0, 0), (0, 0))
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def over_blocks(
    x: Float[Array, "b h w c"], kernel: Float[Array, "height width c maps"], *, stride: int, padding: Padding
) -> tuple[Float[Array, "b rows columns block"], Float[Array, "down right block maps"]]:
    """Images and kernel whose convolution of stride 1, without padding, is that of these with the stride.

    The pixels of a block of `stride x stride` become the channels of one place, and a window becomes a window of whole
    blocks, with zeros where the kernel ends within a block. The sums have the same terms: conv1's windows of 11 x 11
    over 3 channels, 4 apart, become windows of 3 x 3 over 48 channels, 1 apart.
    """
    windows, channels = kernel.shape[:2], x.shape[-1]
    before, after = [(0, 0, 0)], [(0, 0, 0)]
    for size, window, sides in zip(x.shape[1:3], windows, padding, strict=True):
        places = 1 + (size + sum(sides) - window) // stride
        reach = -(-window // stride)  # blocks of a window
        before.append((sides[0], stride * (places - 1 + reach) - size - sides[0], 0))
        after.append((0, stride * reach - window, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [*before, (0, 0, 0)])
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*after[1:], (0, 0, 0), (0, 0, 0)])
    b, rows, columns, maps = x.shape[0], x.shape[1] // stride, x.shape[2] // stride, kernel.shape[-1]
    x = x.reshape(b, rows, stride, columns, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    down, right = kernel.shape[0] // stride, kernel.shape[1] // stride
    kernel = kernel.reshape(down, stride, right, stride, channels, maps).transpose(0, 2, 1, 3, 4, 5)
    block = stride**2 * channels
    return x.reshape(b, rows, columns, block), kernel.reshape(down, right, block, maps)


def local_convolution(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "rows columns terms maps"],
    *,
    window: int,
    stride: int,
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b rows columns maps"]:
    """Convolves each place with its own kernel, as the local layers of CIFAR-10's networks of 2012 do.

    It is a product of matrices at each place and pixel of the window. Their sum is taken in float32, if the type is
    narrower. On a CPU this takes an eighth of the time of `lax.conv_general_dilated_local`, which collects the windows
    by a convolution.

    Args:
      x: images.
      kernel: its terms are channels times pixels of the window, pixels innermost, as in `conv_general_dilated_local`.
      window: pixels on a side.
      stride: pixels between two windows.
      padding: zeros before and after the rows, and before and after the columns.
    """
    rows, columns, _, maps = kernel.shape
    b, channels = x.shape[0], x.shape[-1]
    x = jnp.pad(x.transpose(1, 2, 0, 3), (*padding, (0, 0), (0, 0)))
    kernel = kernel.reshape(rows, columns, channels, window, window, maps)
    y = jnp.zeros((rows, columns, b, maps), type_of_sums(x))
    for i, j in itertools.product(range(window), repeat=2):
        pixels = x[i : i + stride * rows : stride, j : j + stride * columns : stride]
        y += jnp.einsum("rkbc,rkcm->rkbm", pixels, kernel[:, :, :, i, j], preferred_element_type=y.dtype)
    return y.transpose(2, 0, 1, 3).astype(x.dtype)


def _fits(kernel: Array, stride: int, padding: Padding) -> bool:
    """Whether the C kernels cover the geometry: windows of 3 or 5 pixels a side, or of as many blocks of few channels.

    Rows and columns after the image are then as many as its size needs.
    """
    size, before = kernel.shape[0], padding[0][0]
    few = stride == 1 or stride**2 * kernel.shape[2] <= MOST_TERMS
    return -(-size // stride) in (3, 5) and few and kernel.shape[1] == size and 0 <= before == padding[1][0] < size


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    plain, fits = functools.partial(_plain, stride=stride, padding=padding), _fits(kernel, stride, padding)
    return ops.on_cpu("convolution", plain, x, kernel, fits=fits, stride=stride, pad=padding[0][0])


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: Padding, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return _input_gradient(*kept, dy, stride, padding), _kernel_gradient(*kept, dy, stride, padding)


_convolution.defvjp(_forward, _backward)


def _input_gradient(x: Array, kernel: Array, dy: Array, stride: int, padding: Padding) -> Array:
    def plain(dy: Array, kernel: Array) -> Array:
        return jax.vjp(lambda x: _plain(x, kernel, stride, padding), x)[1](dy)[0]

    # The C kernel convolves `dy` with the kernel turned by 180 degrees.
    fits = stride == 1 and _fits(kernel, stride, padding)
    return ops.on_cpu("convolution_input_gradient", plain, dy, kernel, fits=fits, pad=padding[0][0])


def _kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int, padding: Padding) -> Array:
    def plain(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: _plain(x, kernel, stride, padding), kernel)[1](dy)[0]

    fits = _fits(kernel, stride, padding)
    return ops.on_cpu("convolution_kernel_gradient", plain, x, dy, fits=fits, stride=stride, pad=padding[0][0])

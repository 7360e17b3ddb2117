"""A strided convolution as a plain one over blocks of pixels: for kernels that skip pixels of few channels.

Conv1 looks at 11x11 pixels of 3 channels, every fourth. With the pixels of each 4x4 block side by side as 48 channels
it is a plain convolution of 3x3 over blocks: exactly the same products and sums, and some with zeros. Libraries and
matrix units run that, and its gradient with respect to the kernel, faster than strides.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def by_blocks(
    images: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c co"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "b oh ow co"]:
    """`lax.conv_general_dilated`, which becomes a plain one over blocks of pixels.

    Args:
      images: of any size.
      kernel: of any size.
      strides: of rows and columns: the size of a block.
      padding: rows before and after, columns before and after.
      options: of the plain convolution.
    """
    sizes, windows = images.shape[1:3], kernel.shape[:2]
    outs = [
        (size + sum(ends) - window) // stride + 1
        for size, ends, window, stride in zip(sizes, padding, windows, strides, strict=True)
    ]
    spans = [-(-window // stride) for window, stride in zip(windows, strides, strict=True)]  # in blocks
    rows, columns = (
        (before, (out + span - 1) * stride - size - before, 0)
        for size, (before, _), out, span, stride in zip(sizes, padding, outs, spans, strides, strict=True)
    )
    zero = jnp.zeros((), images.dtype)
    images = lax.pad(images, zero, [(0, 0, 0), rows, columns, (0, 0, 0)])
    ends = [(0, span * stride - window, 0) for span, stride, window in zip(spans, strides, windows, strict=True)]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*ends, (0, 0, 0), (0, 0, 0)])
    return lax.conv_general_dilated(
        _blocks(images, strides),
        _blocks(kernel[None], strides)[0],
        (1, 1),
        "VALID",
        **options,
    )


def _blocks(x: Array, strides: Sequence[int]) -> Array:
    """`[b, h, w, c, ...] -> [b, h / s, w / s, s s c, ...]`."""
    batch, height, width, channels, *rest = x.shape
    down, across = strides
    x = x.reshape(batch, height // down, down, width // across, across, channels, *rest)
    x = x.transpose(0, 1, 3, 2, 4, *range(5, x.ndim))
    return x.reshape(batch, height // down, width // across, math.prod(strides) * channels, *rest)

"""The first layer's kernels as pictures, each tower apart: figure 3 of the paper."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from alexnet_jax.drawing.canvas import INK, Figure, new_figure, style

COLUMNS = 16  # 48 kernels are three rows, as in the paper
CELL, TITLE, MARGIN, NARROWEST = 0.5, 0.3, 0.1, 4.5  # inches; NARROWEST: the titles need some width
ENLARGED = 6  # pixels of the picture for a weight: viewers that smooth pictures then leave a weight square

SCALING = (
    "Grey is a weight of 0. Each kernel is scaled by its largest absolute weight: colours and patterns can be compared,"
    " contrasts of different kernels cannot."
)


def draw(kernels: Float[np.ndarray, "towers h w 3 kernels"], titles: Sequence[str]) -> Figure:
    """The kernels of each tower in a block of their own.

    Args:
      kernels: of the first layer, channels red, green, blue.
      titles: of the blocks.
    """
    blocks = [mosaic(tower) for tower in kernels]
    height, width, _ = blocks[0].shape
    wide = max(CELL * min(COLUMNS, kernels.shape[-1]), NARROWEST)
    high = wide * height / width
    size = (wide + 2 * MARGIN, len(blocks) * (TITLE + high + MARGIN))
    with style():
        figure = new_figure(*size)
        figure.set_layout_engine("none")
        for number, (block, title) in enumerate(zip(blocks, titles, strict=True)):
            bottom = (len(blocks) - 1 - number) * (TITLE + high + MARGIN) + MARGIN
            axes = figure.add_axes((MARGIN / size[0], bottom / size[1], wide / size[0], high / size[1]))
            axes.imshow(block, aspect="auto")
            axes.set_axis_off()
            axes.set_title(title, loc="left", color=INK)
    return figure


def mosaic(kernels: Float[np.ndarray, "h w 3 kernels"]) -> UInt8[np.ndarray, "height width 4"]:
    """The kernels side by side in rows of 16, with transparent lines between them: red, green, blue, opacity."""
    height, width, _, count = kernels.shape
    columns, rows = min(COLUMNS, count), -(-count // COLUMNS)
    gap = max(1, width // 8)
    picture = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for number in range(count):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        picture[top : top + height, left : left + width] = as_colours(kernels[..., number])
    return picture.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def as_colours(kernel: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 4"]:
    """A kernel as a picture: a weight of 0 is grey, the largest absolute weight full colour."""
    largest = np.abs(kernel).max()
    scaled = kernel.astype(np.float64) / (largest if largest > 0 else 1)
    colours = np.round(127.5 * (1 + scaled)).astype(np.uint8)
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), 255, np.uint8)], axis=2)

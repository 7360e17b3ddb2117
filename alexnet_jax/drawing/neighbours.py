"""Test images and the training images nearest to them: the right half of the paper's figure 4."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing.canvas import FAINT, INK, SECOND, Figure, new_figure, plain, style

SIDE, APART, LABEL, GAP, MARGIN = 1.15, 0.2, 0.36, 0.08, 0.1  # inches; APART: between a query and its neighbours


class Neighbour(NamedTuple):
    """An image that the search found.

    Attributes:
      name: of the image.
      pixels: of the image.
      truth: the class it belongs to.
      distance: from the query, Euclidean.
    """

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    truth: str
    distance: float


class Query(NamedTuple):
    """A test image, and the training images nearest to it.

    Attributes:
      name: of the image.
      pixels: of the image.
      truth: the class it belongs to.
      neighbours: the nearest first.
    """

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    truth: str
    neighbours: Sequence[Neighbour]


def draw(queries: Sequence[Query]) -> Figure:
    """A row for each query: the test image, then its neighbours with class and distance.

    A class that is not the query's is written in another colour.

    Args:
      queries: at least one, each with the same number of neighbours.
    """
    columns = 1 + len(queries[0].neighbours)
    width = columns * (SIDE + GAP) - GAP + APART + 2 * MARGIN
    cell = SIDE + LABEL
    height = len(queries) * cell + MARGIN
    with style():
        figure = new_figure(width, height)
        figure.set_layout_engine("none")
        for row, query in enumerate(queries):
            bottom = height - (row + 1) * cell - MARGIN / 2 + LABEL
            shown = [(query.pixels, query.truth, "test image")] + [
                (neighbour.pixels, neighbour.truth, f"{neighbour.distance:.3g}") for neighbour in query.neighbours
            ]
            for column, (pixels, truth, note) in enumerate(shown):
                left = MARGIN + column * (SIDE + GAP) + APART * (column > 0)
                axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
                axes.imshow(pixels, aspect="auto", interpolation="antialiased")
                axes.set_axis_off()
                colour = INK if truth == query.truth else SECOND
                name = plain(readable(truth), 20)
                axes.text(0, -0.04, name, va="top", fontsize=7, color=colour, transform=axes.transAxes)
                axes.text(0, -0.16, note, va="top", fontsize=6, color=FAINT, transform=axes.transAxes)
    return figure

"""Curves of a run: loss, error and learning rate by epoch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alexnet_jax.drawing.canvas import FIRST, INK, SECOND, THIRD, Figure, new_figure, style

WIDTH, HEIGHT = 4.6, 3.1  # inches
COLOURS = (FIRST, SECOND, THIRD, INK)
SMOOTHED = 50  # parts of a run: a curve with more points has a running mean over such a part


class Curve(NamedTuple):
    """A number by epoch.

    Attributes:
      label: for people.
      epochs, values: of each point.
      noisy: a mean over few images, which a running mean makes readable.
    """

    label: str
    epochs: Sequence[float]
    values: Sequence[float]
    noisy: bool = False


def draw(curves: Sequence[Curve], title: str, unit: str, *, logarithmic: bool = False) -> Figure:
    """A panel with curves.

    Args:
      curves: one to four, each with at least one point.
      title: of the panel.
      unit: of the values.
      logarithmic: a scale for values that fall by factors; they are then positive.
    """
    with style():
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        for curve, colour in zip(curves, COLOURS, strict=False):
            _draw_curve(axes, curve, colour)
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
        if len(curves) > 1:
            axes.legend(fontsize=8)
    return figure


def _draw_curve(axes, curve: Curve, colour: str) -> None:
    width = len(curve.values) // SMOOTHED
    if not curve.noisy or width < 2:
        marker = "o" if len(curve.values) == 1 or (len(curve.values) <= SMOOTHED and not curve.noisy) else None
        axes.plot(
            curve.epochs, curve.values, color=colour, label=curve.label, linewidth=1.4, marker=marker, markersize=3
        )
        return
    axes.plot(curve.epochs, curve.values, color=colour, linewidth=0.6, alpha=0.3)
    means = np.convolve(curve.values, np.full(width, 1 / width), "valid")
    axes.plot(np.convolve(curve.epochs, np.full(width, 1 / width), "valid"), means, color=colour, label=curve.label)

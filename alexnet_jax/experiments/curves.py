"""Line charts of runs, for docs/results.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_jax.drawing import canvas
from alexnet_jax.drawing.canvas import Figure


def draw(
    runs: Mapping[str, Sequence[Sequence[tuple[float, float]]]], axes: Mapping[str, Any], *, level: float | None = None
) -> Figure:
    """A chart of two kinds of runs: solid lines for the first, dashed lines for the second.

    Args:
      runs: for each kind, by its label, the points `(x, y)` of each run.
      axes: labels and limits of the axes, as matplotlib's `Axes.set` takes them.
      level: y of a thin horizontal line; None: no line.
    """
    with canvas.style():
        figure = canvas.new_figure(4.6, 3.1)
        chart = figure.subplots()
        for (label, curves), colour, line in zip(runs.items(), (canvas.FIRST, canvas.SECOND), ("-", "--"), strict=True):
            for number, points in enumerate(curves):
                x, y = zip(*points, strict=True)
                chart.plot(x, y, line, color=colour, linewidth=1.2, label=label if number == 0 else None)
        if level is not None:
            chart.axhline(level, color=canvas.FAINT, linewidth=0.8)
        chart.set(**axes)
        chart.minorticks_off()
        chart.legend()
    return figure

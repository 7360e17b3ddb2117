"""New figures, and figures as files. Matplotlib is imported here and in drawing functions, never before a figure."""

import io
from typing import Any, TypeAlias

from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.workdir.atomic import write_atomically

Figure: TypeAlias = Any  # matplotlib.figure.Figure
SUFFIXES = (".png", ".svg")
DPI = 150  # pixels an inch of a PNG


class MissingMatplotlibError(UsageError):
    """Matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__("pictures need matplotlib; install it with pip install 'alexnet_jax[figures]'")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a constrained layout. It belongs to no window and to no global state.

    Args:
      width, height: inches.

    Raises:
      MissingMatplotlibError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as MatplotlibFigure
    except ImportError as error:
        raise MissingMatplotlibError from error
    return MatplotlibFigure(figsize=(width, height), dpi=DPI, layout="constrained")


def as_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as a file, the same bytes at every call.

    Args:
      figure: as `new_figure` makes it.
      suffix: `.png` or `.svg`.
    """
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "alexnet_jax"}):
        figure.savefig(file, format=suffix.removeprefix("."), metadata={"Date": None} if suffix == ".svg" else None)
    return file.getvalue()


def write(figure: Figure, file: epath.Path) -> None:
    """Writes the figure as the suffix of the file says.

    Raises:
      OSError: the file cannot be written.
    """
    write_atomically(file, as_bytes(figure, file.suffix.lower()))

"""New figures in one style, and figures as files. Matplotlib is imported where a figure is drawn, never before."""

import contextlib
import io
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

from alexnet_jax.errors import MissingPackageError, UsageError, words_of

Figure: TypeAlias = Any  # matplotlib.figure.Figure
SUFFIXES = (".png", ".svg")
DPI = 150  # pixels an inch of a PNG

INK, FAINT, LINES = "#21262d", "#6a7280", "#dfe3e8"  # text; ticks and notes; grids and frames
FIRST, SECOND, THIRD = "#2463a6", "#b8500f", "#3d7d4b"  # curves
DARK = {  # the same on a dark page, and black, which a drawing may use by name
    INK: "#e6e8eb",
    FAINT: "#9ca4b0",
    LINES: "#3b414a",
    FIRST: "#7db4ee",
    SECOND: "#f0a060",
    THIRD: "#86c994",
    "#000000": "#e6e8eb",
}
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "image.interpolation": "none",
    "image.composite_image": False,
    "svg.hashsalt": "alexnet_jax",  # the same picture is the same file
}
# For letters that matplotlib's own font lacks, such as a class named in Japanese: fonts of several systems.
MORE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Noto Sans Thai",
    "Leelawadee UI",
)


def need_matplotlib() -> None:
    """Checks that pictures can be drawn, before long work is done for them.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    with style():
        pass


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The colours and sizes of all pictures, for what is drawn within the block.

    Raises:
      MissingPackageError: matplotlib is not installed.
      UsageError: its variable or its file of settings has a wrong value.
    """
    try:
        import matplotlib
        from matplotlib import font_manager
    except ImportError as error:
        raise MissingPackageError("pictures need matplotlib", "figures") from error
    except ValueError as error:  # of MPLBACKEND
        words = words_of(error).partition(";")[0]
        raise UsageError(f"matplotlib refuses its settings: {words}; correct or unset MPLBACKEND") from error
    installed = set(font_manager.get_font_names()).intersection(MORE_FONTS)
    own = [family for family in matplotlib.rcParams["font.family"] if family not in MORE_FONTS]
    fonts = {"font.family": own + sorted(installed, key=MORE_FONTS.index)}
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    with matplotlib.rc_context(SETTINGS | fonts), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class in a script without a font
        log.setLevel(logging.ERROR)  # no line where a font has another weight
        try:
            yield
        finally:
            log.setLevel(level)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a constrained layout, within `style`. It belongs to no window and to no global state.

    Args:
      width, height: inches.
    """
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(width, height), dpi=DPI, layout="constrained")


def as_bytes(figure: Figure, suffix: str, *, transparent: bool = False) -> bytes:
    """The figure as a file, the same bytes at every call.

    Args:
      figure: as `new_figure` makes it.
      suffix: `.png` or `.svg`. An SVG has text as outlines and needs no font.
      transparent: without a background.
    """
    file = io.BytesIO()
    with style():
        figure.savefig(
            file,
            format=suffix.removeprefix("."),
            metadata={"Date": None} if suffix == ".svg" else None,
            facecolor="none" if transparent else "white",
        )
    return file.getvalue()


def in_the_dark(svg: str) -> str:
    """A transparent SVG for dark pages, with the colours of `DARK`."""
    return re.sub("|".join(DARK), lambda match: DARK[match.group()], svg)


def plain(text: str, most: int = 40) -> str:
    """A text that a picture can show: without control characters and formulas, and at most `most` characters long."""
    shown = "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in text).strip()
    shown = shown if len(shown) <= most else shown[: most - 1].rstrip() + "…"
    return shown.replace("$", r"\$")  # a dollar would begin a formula

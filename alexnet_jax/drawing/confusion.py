"""The confusion matrix as a picture, readable for two classes and for a thousand."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing.canvas import Figure, new_figure, plain, style

DARK_TEXT, LIGHT_TEXT = "#111111", "#ffffff"  # on the cells, which are the same on light and dark pages
DARK_CELL = 0.7  # a share from which on white stands out more than black, by WCAG's ratio of contrast
COUNTED_CLASSES = 20  # with more, the counts do not fit into the cells
SHARED_CLASSES = 8  # with more, the shares do not fit below the counts
NAMED_CLASSES = 60  # with more, the names do not fit beside the cells
CELLS = 250  # along a side; with more classes, a cell stands for several
COMMONEST = 24  # confusions listed where there are no names
LETTERS = 24  # of a name
LETTER = 0.0085  # width of a letter in inches, for each point of its size


def draw(
    matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], count: Int[np.ndarray, " classes"]
) -> Figure:
    """A figure of how often each true class (rows) was predicted as each class (columns).

    The colour of a cell is its share of the row. Up to 20 classes have their counts in the cells, up to 60 their names
    beside them. With more classes a list has the commonest confusions by name. With more than 250, a cell stands for
    several classes in either direction, and shows the largest of their shares.

    Args:
      matrix: counts, as `evaluation.tally` gives them.
      class_names: in the order of the labels.
      count: images of each class, of which some may have no prediction.

    Returns:
      A matplotlib figure.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    names = labels_of(class_names)
    listed = len(names) > NAMED_CLASSES
    shares = matrix / np.maximum(count[:, None], 1)
    with style():
        figure, axes, beside = _axes(names, listed)
        _draw_cells(figure, axes, shares, listed)
        if listed:
            axes.set_xlabel("predicted class, by number")
            axes.set_ylabel("true class, by number")
            _list_confusions(beside, matrix, names)
        else:
            _name_axes(axes, names)
        if len(names) <= COUNTED_CLASSES:
            _write_counts(axes, matrix, shares)
        axes.set_title(f"{int(np.trace(matrix)):,} of {int(count.sum()):,} images are predicted right")
    return figure


def labels_of(class_names: Sequence[str]) -> list[str]:
    """Short names for a picture: ImageNet's in English, with the WordNet id where two classes share a name."""
    alone = [_without_id(name) for name in class_names]
    times = Counter(alone)
    names = [readable(name) if times[short] > 1 else short for name, short in zip(class_names, alone, strict=True)]
    return [plain(_cut(name)) for name in names]


def commonest(matrix: Int[np.ndarray, "classes classes"], count: int) -> list[tuple[int, int, int]]:
    """The commonest confusions, as (examples, true class, predicted class), the most frequent first.

    Args:
      matrix: counts, as `evaluation.tally` gives them.
      count: of confusions, at most.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")[:count]
    return [(int(wrong[rows[i], columns[i]]), int(rows[i]), int(columns[i])) for i in order]


def _without_id(class_name: str) -> str:
    return readable(class_name).removesuffix(f" ({class_name})")


def _cut(name: str) -> str:
    """The name, or its two ends: names of one family often differ in the last letters."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 9]}…{name[-8:]}"


def _axes(names: Sequence[str], listed: bool) -> tuple[Figure, Any, Any]:
    """A figure with room for the cells and the names, its axes, and axes for the list beside them."""
    size = _font_size(len(names))
    if listed:
        figure = new_figure(14.0, 8.4)
        axes, beside = figure.subplots(1, 2, width_ratios=(9.0, 4.6))
        return figure, axes, beside
    cells = max(2.6, len(names) * (0.8 if len(names) <= SHARED_CLASSES else 0.42 if size == 9 else 0.17))
    longest = max(map(len, names)) * LETTER * size
    below = 0.2 if _are_upright(names) else 0.75 * longest
    figure = new_figure(cells + longest + 1.9, cells + below + 1.0)
    return figure, figure.subplots(), None


def _font_size(classes: int) -> int:
    return 9 if classes <= COUNTED_CLASSES else 6


def _are_upright(names: Sequence[str]) -> bool:
    return len(names) <= 4 and max(map(len, names)) <= 12


def _draw_cells(figure: Figure, axes: Any, shares: Float[np.ndarray, "classes classes"], listed: bool) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    classes = len(shares)
    each = -(-classes // CELLS)
    missing = -classes % each
    blocks = np.pad(shares, (0, missing)).reshape((classes + missing) // each, each, -1, each).max(axis=(1, 3))
    edge = classes + missing - 0.5
    # Of many classes, the share of a single confusion is small: the root makes it visible.
    norm = PowerNorm(0.5 if listed else 1.0, vmin=0.0, vmax=1.0)
    cells = axes.imshow(
        blocks, cmap="Blues", norm=norm, interpolation="nearest", aspect="equal", extent=(-0.5, edge, edge, -0.5)
    )
    if listed:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    what = "share of the true class" if each == 1 else f"largest share among {each} by {each} classes"
    bar = figure.colorbar(cells, ax=axes, shrink=0.8, format=PercentFormatter(1.0, decimals=0), label=what)
    bar.set_ticks([0, 0.05, 0.2, 0.4, 0.6, 0.8, 1] if listed else [0, 0.2, 0.4, 0.6, 0.8, 1])


def _name_axes(axes: Any, names: Sequence[str]) -> None:
    size = _font_size(len(names))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if _are_upright(names):
        axes.set_xticks(range(len(names)), names, fontsize=size)
    else:
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _write_counts(
    axes: Any, matrix: Int[np.ndarray, "classes classes"], shares: Float[np.ndarray, "classes classes"]
) -> None:
    with_shares = len(matrix) <= SHARED_CLASSES
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        text = f"{count:,}\n{share:.1%}" if with_shares else f"{count:,}" if count else ""
        colour = LIGHT_TEXT if share > DARK_CELL else DARK_TEXT
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if with_shares else 7)


def _list_confusions(axes: Any, matrix: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> None:
    axes.set_axis_off()
    axes.set_title("commonest confusions", loc="left")
    confusions = commonest(matrix, COMMONEST)
    lines = [f"{names[row]} → {names[column]}" for _, row, column in confusions]
    counts = [f"{count:,}" for count, _, _ in confusions]
    style: dict[str, Any] = dict(va="top", fontsize=8, transform=axes.transAxes, linespacing=1.6)
    axes.text(0.1, 0.99, "\n".join(["images", *counts]), ha="right", **style)
    axes.text(0.14, 0.99, "\n".join(["true class → predicted class", *lines]), ha="left", **style)

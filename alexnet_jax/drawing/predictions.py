"""Pictures with the likeliest classes as bars, as in the left half of the paper's figure 4."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing.canvas import FAINT, FIRST, INK, SECOND, Figure, new_figure, style
from alexnet_jax.paths import in_one_line

COLUMNS = 4  # pictures side by side, as in the paper
WIDTH, GAP, LABEL, BAR = 2.0, 0.25, 0.24, 0.2  # inches
POINTS = 8  # of the letters
OPACITY = 0.45  # of a bar, with letters on it, on a light page and on a dark one
NAME_SHARE = 0.76  # of the width; the rest is for the probability


@dataclasses.dataclass(frozen=True)
class Answer:
    """A picture and what a network says about it.

    Attributes:
      name: of the picture.
      pixels: as the network sees them.
      classes: the likeliest, likeliest first.
      probabilities: of these classes.
      truth: the class it belongs to; None: not known.
    """

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    classes: Sequence[str]
    probabilities: Sequence[float]
    truth: str | None = None


def likeliest(
    log_probs: Float[np.ndarray, " classes"], class_names: Sequence[str], most: int
) -> tuple[list[str], list[float]]:
    """The likeliest classes, at most `most`, likeliest first, and their probabilities to six digits."""
    labels = np.argsort(-log_probs, kind="stable")[:most]
    return [class_names[label] for label in labels], [float(f"{np.exp(log_probs[label]):.6g}") for label in labels]


def draw(answers: Sequence[Answer]) -> Figure:
    """Pictures in a grid; below each its true class, else its name, and a bar for each of the likeliest classes.

    The bar of the true class is orange, other bars are blue. A bar of full width is a probability of 1.

    Args:
      answers: at least one.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    columns = min(COLUMNS, len(answers))
    rows = -(-len(answers) // columns)
    cell = WIDTH + LABEL + BAR * max(len(answer.classes) for answer in answers) + GAP
    width, height = columns * (WIDTH + GAP) + GAP, rows * cell + GAP
    with style():
        figure = new_figure(width, height)
        figure.set_layout_engine("none")
        for number, answer in enumerate(answers):
            left = GAP + (number % columns) * (WIDTH + GAP)
            top = height - GAP - (number // columns) * cell
            picture = figure.add_axes((left / width, (top - WIDTH) / height, WIDTH / width, WIDTH / height))
            picture.imshow(answer.pixels, aspect="auto", interpolation="antialiased")
            picture.set_axis_off()
            depth = LABEL + BAR * len(answer.classes)
            below = figure.add_axes((left / width, (top - WIDTH - depth) / height, WIDTH / width, depth / height))
            _draw_bars(below, answer)
    return figure


def _draw_bars(axes: Any, answer: Answer) -> None:
    """The line below a picture, and the bars."""
    axes.set(xlim=(0, 1), ylim=(LABEL + BAR * len(answer.classes), 0))  # downwards, inches
    axes.set_axis_off()
    letters: dict[str, Any] = dict(va="center", fontsize=POINTS, parse_math=False)
    if answer.truth is not None:
        title = axes.text(0.5, LABEL / 2, "", ha="center", weight="bold", color=INK, **letters)
        _write_class(title, answer.truth, share=1.0)
    else:
        title = axes.text(0.5, LABEL / 2, "", ha="center", style="italic", color=FAINT, **letters)
        _write(title, answer.name, share=1.0, keep_end=True)
    for place, (class_name, probability) in enumerate(zip(answer.classes, answer.probabilities, strict=True)):
        middle = LABEL + BAR * (place + 0.5)
        colour = SECOND if class_name == answer.truth else FIRST
        axes.barh(middle, probability, height=0.85 * BAR, color=colour, alpha=OPACITY, linewidth=0)
        letters |= dict(fontsize=POINTS - 1, color=INK)
        axes.text(0.99, middle, f"{probability:.1%}", ha="right", **letters)
        _write_class(axes.text(0.02, middle, "", ha="left", **letters), class_name, share=NAME_SHARE)


def _write_class(text: Any, class_name: str, *, share: float) -> None:
    """Writes the name of a class, without its WordNet id where there is no room for both."""
    name = readable(class_name)
    _write(text, name, share=share)
    if text.get_text() != name:
        _write(text, name.removesuffix(f" ({class_name})"), share=share)


def _write(text: Any, words: str, *, share: float, keep_end: bool = False) -> None:
    """Writes a text, shortened to a share of the axes' width.

    Args:
      text: of matplotlib.
      words: to write; a character that has no place in a line is replaced.
      share: of the width.
      keep_end: the end is kept, not the start: that of a file's name says more.
    """
    words = "".join(letter if in_one_line(letter) == letter else "\N{REPLACEMENT CHARACTER}" for letter in words)
    space = share * text.axes.get_window_extent().width
    text.set_text(words)
    while len(words) > 1 and (wide := text.get_window_extent().width) > space:
        kept = min(len(words) - 1, max(1, int(len(words) * space / wide)))
        words = words[-kept:] if keep_end else words[:kept]
        text.set_text(f"…{words}" if keep_end else f"{words}…")

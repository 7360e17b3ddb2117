"""Figure 3 of the paper: the kernels of the first layer, and how the towers differ."""

import numpy as np
from jaxtyping import Float

from alexnet_jax.drawing import kernels, page
from alexnet_jax.drawing.collection import Exhibit
from alexnet_jax.drawing.page import Section
from alexnet_jax.network.specialisation import DEFINITION, NOISE, PERMUTATIONS, Specialisation


def exhibit(weights: Float[np.ndarray, "towers h w 3 kernels"], specialisation: Specialisation, grey: bool) -> Exhibit:
    """Figure 3.

    Args:
      weights: kernels of the first layer.
      specialisation: their colour shares.
      grey: the images of the data set have no colour.
    """
    towers, height, width, _, count = weights.shape
    titles = [_tower_title(i, towers, count, mean) for i, mean in enumerate(specialisation.means)]
    figures = {"kernels": kernels.draw(weights, titles)}
    shares = _shares_in_words(specialisation)
    words = f"Kernels of {height} x {width} pixels, in colour: {'; '.join(titles)}."
    shown = [(figures["kernels"], words)]
    caption = f"{words} {kernels.SCALING}"
    if grey:
        sums = np.repeat(weights.sum(axis=3, keepdims=True), 3, axis=3)
        named = [f"{_tower_name(i, towers)}, the sum of red, green and blue" for i in range(towers)]
        figures["kernels_grey"] = kernels.draw(sums, named)
        shown.append((figures["kernels_grey"], f"The same {towers * count} kernels in grey: {'; '.join(named)}."))
        caption += (
            " The images of this data set are grey, so training changes the three colours of a kernel alike, and the"
            " colours seen here are left from the initial values. The second picture has the sum of the three colours,"
            " which is all that a grey image meets."
        )
    body = page.charts(shown) + page.table(
        ["", "kernels", "mean colour share"],
        [
            (_tower_name(i, towers), f"{len(each)}", "-" if mean is None else f"{mean:.3f}")
            for i, (each, mean) in enumerate(zip(specialisation.shares, specialisation.means, strict=True))
        ],
    )
    body += page.note(f"{DEFINITION} {shares}")
    return Exhibit(
        figures,
        Section(
            "Kernels of the first layer",
            body,
            caption,
            "In the paper (figure 3): 96 kernels of 11 x 11 x 3, the upper 48 learned on GPU 1 and largely"
            " colour-agnostic, the lower 48 learned on GPU 2 and largely colour-specific (section 6.1).",
        ),
    )


def _tower_name(number: int, towers: int) -> str:
    return "all kernels" if towers == 1 else f"tower {number + 1}"


def _tower_title(number: int, towers: int, count: int, mean: float | None) -> str:
    share = "no weights but 0" if mean is None else f"mean colour share {mean:.2f}"
    return f"{_tower_name(number, towers)}: {count} kernels, {share}" if towers > 1 else f"{count} kernels, {share}"


def _shares_in_words(specialisation: Specialisation) -> str:
    if len(specialisation.shares) == 1:
        return "The network has one tower, so there is no other tower to compare."
    if specialisation.p_value is None:
        return "A tower has no kernel with weights, so the towers cannot be compared."
    first, second = (float(shares.mean()) for shares in specialisation.shares)
    return (
        f"The towers differ by {abs(first - second):.3f}, p = {specialisation.p_value:.4f} (two-sided permutation test,"
        f" {PERMUTATIONS:,} permutations of the kernels between the towers)."
    )


def tower_lines(specialisation: Specialisation) -> list[str]:
    """The colour shares as lines of text, with their definition."""
    lines = [
        f"{_tower_name(i, len(specialisation.shares))}: mean colour share {'-' if mean is None else f'{mean:.3f}'} of"
        f" {len(shares)} kernels (grey 0, noise {NOISE:.3f})"
        for i, (shares, mean) in enumerate(zip(specialisation.shares, specialisation.means, strict=True))
    ]
    return [*lines, _shares_in_words(specialisation), DEFINITION]


def is_grey(mean_image: Float[np.ndarray, "size size 3"]) -> bool:
    """Whether the images of a data set have no colour, to judge by their mean: pixels from 0 to 255.

    A mean that is the same everywhere was not taken from images.
    """
    return bool(np.ptp(mean_image, axis=-1).max() < 0.5 < np.ptp(mean_image))

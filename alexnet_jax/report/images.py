"""What the network does with images: the two halves of figure 4, its confusions and its worst mistakes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing import confusion, neighbours, page, predictions
from alexnet_jax.drawing.collection import Exhibit
from alexnet_jax.drawing.page import Section
from alexnet_jax.report.examination import Examined, Nearest

SPELLED = 10  # classes: the confusion matrix of more is not put into words whole
CONFUSIONS = 10  # put into words and into a table


def predictions_exhibit(examined: Examined) -> Exhibit:
    """Figure 4, left half."""
    guesses = len(examined.chosen[0].classes)
    right = sum(each.classes[0] == each.truth for each in examined.chosen)
    return Exhibit(
        {"predictions": predictions.draw(examined.chosen)},
        Section(
            "Predictions",
            page.answers(examined.chosen),
            f"{len(examined.chosen)} images drawn at random from {examined.name}, each with its true class and the"
            f" {_number(guesses)} likeliest classes; the bar of the true class is orange. {right} of"
            f" {len(examined.chosen)} have their true class first. Centre crops.",
            "In the paper (figure 4, left): eight test images of ILSVRC-2010 with the five labels that its network"
            " thinks most probable.",
        ),
    )


def neighbours_exhibit(nearest: Nearest, split: str, train: str, of: int) -> Exhibit:
    """Figure 4, right half.

    Args:
      nearest: the neighbours.
      split, train: names of the splits.
      of: images of the training split, of which some may not have been searched.
    """
    pairs = [(query.truth, each.truth) for query in nearest.queries for each in query.neighbours]
    count = len(nearest.queries[0].neighbours)
    same = sum(one == other for one, other in pairs)
    searched = f"all {of:,} images of {train}"
    if nearest.searched < of:
        searched = f"{nearest.searched:,} of the {of:,} images of {train}, at even distances"
    return Exhibit(
        {"neighbours": neighbours.draw(nearest.queries)},
        Section(
            "Nearest training images",
            page.neighbours(nearest.queries),
            f"{len(nearest.queries)} images drawn at random from {split}, each with the {count} images nearest to it"
            f" among {searched}, by Euclidean distance of the features of {nearest.layer} (exact search; the number is"
            f" the distance). {same} of {len(pairs)} neighbours have the class of their test image; by chance there"
            f" would be {nearest.chance * len(pairs):.1f}. Names of other classes are orange.",
            "In the paper (figure 4, right): five test images and, for each, the six training images whose feature"
            " vectors of the last hidden layer are nearest by Euclidean distance.",
        ),
    )


def confusion_exhibit(examined: Examined, class_names: Sequence[str]) -> Exhibit | None:
    """Which classes are predicted in place of which; None: there are too many classes."""
    if examined.matrix is None:
        return None
    counts = examined.tally.count
    figure = confusion.draw(examined.matrix, class_names, counts)
    names = [readable(name) for name in class_names]
    listed = "" if len(names) <= SPELLED else _table_of_confusions(examined.matrix, names)
    means, count = examined.tally.means(), int(counts.sum())
    top5 = f", top-5 error {page.percent(means['top5'])}" if "top5" in means else ""
    return Exhibit(
        {"confusion": figure},
        Section(
            "Confusions",
            page.charts([(figure, confusion_in_words(examined.matrix, names, counts))]) + listed,
            f"True classes are rows, predicted classes are columns, for {count:,} images of {examined.name}, centre"
            f" crops: top-1 error {page.percent(means['top1'])}{top5}.",
            "The paper has no such picture. Its errors on ILSVRC-2010's test images are 37.5 % and 17.0 % (table 1).",
        ),
    )


def confusion_in_words(
    matrix: Int[np.ndarray, "classes classes"], names: Sequence[str], count: Int[np.ndarray, " classes"]
) -> str:
    """A confusion matrix as text: each row where there are few classes, else the commonest confusions.

    Args:
      matrix, count: as `confusion.draw` takes them.
      names: of the classes.
    """
    if len(names) <= SPELLED:
        rows = [
            f"of {int(images):,} {name}: "
            + ", ".join(f"{int(n):,} as {other}" for n, other in zip(row, names, strict=True))
            for row, name, images in zip(matrix, names, count, strict=True)
        ]
        return f"Predicted, {'; '.join(rows)}."
    commonest = confusion.commonest(matrix, CONFUSIONS)
    listed = "; ".join(f"{names[true]} as {names[said]}, {count:,}" for count, true, said in commonest)
    return f"{len(names):,} classes. The commonest confusions: {listed or 'none'}."


def _table_of_confusions(matrix: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> str:
    """The commonest confusions in letters that a phone can show, which a picture of many classes has not."""
    commonest = confusion.commonest(matrix, CONFUSIONS)
    rows = [(f"{names[true]} as {names[said]}", f"{count:,}") for count, true, said in commonest]
    return page.table(["commonest confusions", "images"], rows)


def mistakes_exhibit(examined: Examined) -> Exhibit | None:
    """The images of which the network is most certain and wrong; None: it makes no mistake."""
    if not examined.mistakes:
        return None
    return Exhibit(
        {"mistakes": predictions.draw(examined.mistakes)},
        Section(
            "Worst mistakes",
            page.answers(examined.mistakes),
            f"The {len(examined.mistakes)} of {examined.wrong:,} wrongly predicted images of {examined.name} whose"
            " wrong class has the highest probability, the highest first. Some may be labelled wrongly.",
        ),
    )


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four", 5: "five"}.get(count, str(count))

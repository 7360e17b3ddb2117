"""The parts of a report on a trained network: pictures, their content in words, and captions with the paper beside."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from alexnet_jax import exhibits
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.drawing import confusion, curves, kernels, neighbours, page, predictions
from alexnet_jax.drawing.canvas import style
from alexnet_jax.drawing.collection import Exhibit
from alexnet_jax.drawing.page import Section
from alexnet_jax.exhibits import Examined, Found
from alexnet_jax.network.specialisation import DEFINITION, NOISE, PERMUTATIONS, Specialisation
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import record

MISTAKE_COLUMNS = 4
SPELLED = 10  # classes: the confusion matrix of more is not put into words whole
CONFUSIONS = 10  # put into words
PANELS = {  # of the curves: title, unit, and the columns of `metrics.jsonl` with their names
    "loss": ("loss", "nats", {"train/loss": "training", "eval/loss": "validation"}),
    "error": (
        "error",
        "share of the images",
        {
            "train/top1": "training",
            "eval/top1": "validation",
            "eval/top5": "validation, top-5",
            "final/top1_10_views": "ten views, at the end",
        },
    ),
    "learning_rate": ("learning rate", "rate of the kernels", {"train/learning_rate": "learning rate"}),
}


def is_grey(mean_image: Float[np.ndarray, "size size 3"]) -> bool:
    """Whether the images of a data set have no colour, to judge by their mean: pixels from 0 to 255."""
    return bool(np.ptp(mean_image, axis=-1).max() < 0.5)


def facts(net: Trained, folder: epath.Path, examined: Examined | None) -> list[tuple[str, str]]:
    """The facts of a run, by name, for the head of the page.

    Args:
      net: the network.
      folder: its workdir.
      examined: its errors; None: not known.
    """
    network, towers = net.settings.network, net.tower.towers
    parameters = sum(leaf.size for leaf in jax.tree.leaves(net.params))
    width = "" if network.width == 1 else f", width {network.width:g}"
    found = [
        ("recipe", f"{network.recipe}, {'two towers' if towers == 2 else 'one tower'}{width}"),
        ("parameters", f"{parameters:,}"),
        ("checkpoint", f"after update {net.step:,}"),
        ("data set", net.settings.dataset.name + (f", {len(net.classes):,} classes" if net.classes else "")),
        ("input", f"crops of {net.preprocessing.crop_size} pixels from images of {net.preprocessing.image_size}"),
    ]
    if examined is not None:
        means = examined.metrics.means()
        errors = ", ".join(f"top-{key[3:]} {_percent(value)}" for key, value in means.items() if key != "loss")
        found.append(("error of the centre crop", f"{errors}, {int(examined.metrics.count):,} images"))
        found.append(("loss", f"{means['loss']:.4f} nats"))
    with contextlib.redirect_stdout(sys.stderr):  # a warning about a damaged file is no result
        result = record.read_result(folder)
    if result is None:
        found.append(("run", "not finished, or not trained here"))
    else:
        found.append(
            ("error of ten views", f"top-1 {_percent(result['top1_10_views'])}, {int(result['count']):,} images")
        )
        found.append(("run", f"finished after update {result['step']:,}"))
    return found


def kernels_exhibit(weights: Float[np.ndarray, "towers h w 3 kernels"], found: Specialisation, grey: bool) -> Exhibit:
    """Figure 3.

    Args:
      weights: kernels of the first layer.
      found: their colour shares.
      grey: the images of the data set have no colour.
    """
    towers, height, width, _, count = weights.shape
    titles = [_tower_title(i, towers, count, mean) for i, mean in enumerate(found.means)]
    figures = {"kernels": kernels.draw(weights, titles)}
    shares = _shares_in_words(found)
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
            for i, (each, mean) in enumerate(zip(found.shares, found.means, strict=True))
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


def _shares_in_words(found: Specialisation) -> str:
    if len(found.shares) == 1:
        return "The network has one tower, so there is no other tower to compare."
    if found.p_value is None:
        return "A tower has no kernel with weights, so the towers cannot be compared."
    return f"{difference_in_words(found)}."


def difference_in_words(found: Specialisation) -> str:
    """The difference between two towers, with its p-value."""
    first, second = (mean for mean in found.means if mean is not None)
    return (
        f"The towers differ by {abs(first - second):.3f}, p = {found.p_value:.4f} (two-sided permutation test,"
        f" {PERMUTATIONS:,} permutations of the kernels between the towers)"
    )


def tower_lines(found: Specialisation) -> list[str]:
    """The colour shares as lines of text, with their definition."""
    lines = [
        f"{_tower_name(i, len(found.shares))}: mean colour share {'-' if mean is None else f'{mean:.3f}'} of"
        f" {len(shares)} kernels (grey 0, noise {NOISE:.3f})"
        for i, (shares, mean) in enumerate(zip(found.shares, found.means, strict=True))
    ]
    return [*lines, _shares_in_words(found), DEFINITION]


def curves_exhibit(rows: Sequence[Mapping[str, Any]], schedule: str) -> Exhibit | None:
    """Loss, error and learning rate by epoch; None: the rows hold none of them.

    Args:
      rows: of `metrics.jsonl`.
      schedule: of the run's config.
    """
    figures, shown = {}, []
    for name, (title, unit, keys) in PANELS.items():
        found = [exhibits.curve(rows, key, label) for key, label in keys.items()]
        found = [each for each in found if each.values]
        if not found:
            continue
        logarithmic = name == "learning_rate" and schedule != "cosine" and min(found[0].values) > 0
        figures[name] = curves.draw(found, title, unit, logarithmic=logarithmic)
        shown.append((figures[name], f"{title} in {unit}: {'; '.join(map(_in_words, found))}."))
    if not figures:
        return None
    caption = (
        "Training metrics are means over the updates since the row before, with crops, flips, noise and dropout;"
        " validation metrics are of centre crops without them. Where there are many rows, the thin line has all of them"
        " and the thick line a running mean over a fiftieth of the run."
    )
    paper = (
        "The paper prints no curves of this network. It divides the learning rate by 10 when the validation error stops"
        " falling (section 5), and ends at 40.7 % top-1 and 18.2 % top-5 error on ILSVRC-2012 with ten views (table 2)."
    )
    return Exhibit(figures, Section("Curves of the run", page.charts(shown), caption, paper))


def _in_words(curve: curves.Curve) -> str:
    """A curve as text: its ends and its smallest value."""
    values, epochs = curve.values, curve.epochs
    if len(values) == 1:
        return f"{curve.label} {values[0]:.4g}"
    least = int(np.argmin(values))
    return (
        f"{curve.label} from {values[0]:.4g} at epoch {epochs[0]:.3g} to {values[-1]:.4g} at epoch {epochs[-1]:.3g},"
        f" smallest {values[least]:.4g} at epoch {epochs[least]:.3g}"
    )


def predictions_exhibit(found: Examined, split: str) -> Exhibit:
    """Figure 4, left half."""
    with style():
        figure = predictions.draw(found.chosen)
    guesses = len(found.chosen[0].classes)
    right = sum(each.classes[0] == each.truth for each in found.chosen)
    return Exhibit(
        {"predictions": figure},
        Section(
            "Predictions",
            page.answers(found.chosen),
            f"{len(found.chosen)} images drawn at random from {split}, each with its true class and the"
            f" {_number(guesses)} likeliest classes; the bar of the true class is orange. {right} of"
            f" {len(found.chosen)} have their true class first. Centre crops.",
            "In the paper (figure 4, left): eight test images of ILSVRC-2010 with the five labels that its network"
            " thinks most probable.",
        ),
    )


def neighbours_exhibit(found: Found, split: str, train: str, of: int) -> Exhibit:
    """Figure 4, right half.

    Args:
      found: the neighbours.
      split, train: names of the splits.
      of: images of the training split, of which some may not have been searched.
    """
    pairs = [(query.truth, each.truth) for query in found.queries for each in query.neighbours]
    count = len(found.queries[0].neighbours)
    same = sum(one == other for one, other in pairs)
    searched = f"all {of:,} images of {train}"
    if found.searched < of:
        searched = (
            f"{found.searched:,} of the {of:,} images of {train}, at even distances (--train_images sets the number)"
        )
    return Exhibit(
        {"neighbours": neighbours.draw(found.queries)},
        Section(
            "Nearest training images",
            page.neighbours(found.queries),
            f"{len(found.queries)} images drawn at random from {split}, each with the {count} images nearest to it"
            f" among {searched}, by Euclidean distance of the features of {found.layer} (exact search; the number is"
            f" the distance). {same} of {len(pairs)} neighbours have the class of their test image; by chance there"
            f" would be {found.chance * len(pairs):.1f}. Names of other classes are orange.",
            "In the paper (figure 4, right): five test images and, for each, the six training images whose feature"
            " vectors of the last hidden layer are nearest by Euclidean distance.",
        ),
    )


def confusion_exhibit(found: Examined, class_names: Sequence[str], split: str) -> Exhibit:
    """Which classes are taken for which."""
    with style():
        figure = confusion.draw(found.matrix, class_names)
    names = [readable(name) for name in class_names]
    means, count = found.metrics.means(), int(found.metrics.count)
    top5 = f", top-5 error {_percent(means['top5'])}" if "top5" in means else ""
    return Exhibit(
        {"confusion": figure},
        Section(
            "Confusions",
            page.charts([(figure, confusion_in_words(found.matrix, names))]),
            f"True classes are rows, predicted classes are columns, for {count:,} images of {split}, centre crops:"
            f" top-1 error {_percent(means['top1'])}{top5}.",
            "The paper has no such picture. Its errors on ILSVRC-2010's test images are 37.5 % and 17.0 % (table 1).",
        ),
    )


def confusion_in_words(matrix: np.ndarray, names: Sequence[str]) -> str:
    """A confusion matrix as text: each row where there are few classes, else the commonest confusions."""
    if len(names) <= SPELLED:
        rows = [
            f"of {int(row.sum()):,} {name}: "
            + ", ".join(f"{int(n):,} as {other}" for n, other in zip(row, names, strict=True))
            for row, name in zip(matrix, names, strict=True)
        ]
        return f"Predicted, {'; '.join(rows)}."
    found = confusion.commonest(matrix, CONFUSIONS)
    listed = "; ".join(f"{names[true]} as {names[said]}, {count:,}" for count, true, said in found)
    return f"{len(names):,} classes. The commonest confusions: {listed or 'none'}."


def mistakes_exhibit(found: Examined, split: str) -> Exhibit | None:
    """The images of which the network is most certain and wrong; None: it makes no mistake."""
    if not found.mistakes:
        return None
    with style():
        figure = predictions.draw(found.mistakes, columns=MISTAKE_COLUMNS)
    wrong = int(found.matrix.sum() - np.trace(found.matrix))
    return Exhibit(
        {"mistakes": figure},
        Section(
            "Worst mistakes",
            page.answers(found.mistakes),
            f"The {len(found.mistakes)} of {wrong:,} wrongly predicted images of {split} whose wrong class has the"
            " highest probability, the highest first. Some may be labelled wrongly.",
        ),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four", 5: "five"}.get(count, str(count))

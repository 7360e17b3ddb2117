"""A run: its facts, and its curves."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from alexnet_jax.drawing import curves, page
from alexnet_jax.drawing.collection import Exhibit
from alexnet_jax.drawing.curves import Curve
from alexnet_jax.drawing.page import Section
from alexnet_jax.network import sharding
from alexnet_jax.report.examination import Examined
from alexnet_jax.strict_json import is_finite
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import record

NOISY = ("train/loss", "train/top1")  # means over the images since the row before
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


def facts(network: Trained, folder: epath.Path, examined: Examined | None) -> list[tuple[str, str]]:
    """The facts of a run, by name, for the head of the page.

    Args:
      network: the network.
      folder: its workdir.
      examined: its errors; None: not known.
    """
    recipe, towers = network.settings.network, network.tower.towers
    parameters = sharding.count_params(network.params)
    width = "" if recipe.width == 1 else f", width {recipe.width:g}"
    pairs = [
        ("recipe", f"{recipe.recipe}, {'two towers' if towers == 2 else 'one tower'}{width}"),
        ("parameters", f"{parameters:,}"),
        ("checkpoint", f"after update {network.step:,}"),
        (
            "data set",
            network.settings.dataset.name + (f", {len(network.classes):,} classes" if network.classes else ""),
        ),
        (
            "input",
            f"crops of {network.preprocessing.crop_size} pixels from images of {network.preprocessing.image_size}",
        ),
    ]
    if examined is not None:
        means = examined.tally.means()
        rates = {key[3:]: page.percent(value) for key, value in means.items() if key != "loss"}
        errors = ", ".join(f"top\N{NON-BREAKING HYPHEN}{k} {rate}" for k, rate in rates.items())
        images = f"{int(examined.tally.count.sum()):,} images of {examined.name}"
        pairs.append(("error of the centre crop", f"{errors}, {images}"))
        pairs.append(("loss", f"{means['loss']:.4f} nats"))
    with contextlib.redirect_stdout(sys.stderr):  # a warning about a damaged file is no result
        result = record.read_result(folder)
    if result is None:
        pairs.append(("run", "not finished, or not trained here"))
    else:
        error = f"top\N{NON-BREAKING HYPHEN}1 {page.percent(result['top1_10_views'])}"
        pairs.append(("error of ten views at the end of the run", f"{error}, {int(result['count']):,} images"))
        pairs.append(("run", f"finished after update {int(result['step']):,}"))
    return pairs


def curves_exhibit(rows: Sequence[Mapping[str, Any]], schedule: str) -> Exhibit | None:
    """Loss, error and learning rate by epoch; None: the rows hold none of them.

    Args:
      rows: of `metrics.jsonl`.
      schedule: of the run's config.
    """
    figures, shown = {}, []
    for name, (title, unit, keys) in PANELS.items():
        plotted = [curve_of(rows, key, label) for key, label in keys.items()]
        plotted = [each for each in plotted if each.values]
        if not plotted:
            continue
        logarithmic = name == "learning_rate" and schedule != "cosine" and min(plotted[0].values) > 0
        figures[name] = curves.draw(plotted, title, unit, logarithmic=logarithmic)
        shown.append((figures[name], f"{title} in {unit}: {'; '.join(map(_in_words, plotted))}."))
    if not figures:
        return None
    caption = (
        "Training metrics are means over the updates since the row before, of images as augmentation changes them, and"
        " with dropout where the network has it; validation metrics are of centre crops of the images as they are,"
        " without dropout. Where there are many rows, the thin line has all of them"
        " and the thick line a running mean over a fiftieth of the run."
    )
    paper = (
        "The paper prints no curves of this network. It divides the learning rate by 10 when the validation error stops"
        " falling (section 5), and ends at 40.7 % top-1 and 18.2 % top-5 error on ILSVRC-2012 with ten views (table 2)."
    )
    return Exhibit(figures, Section("Curves of the run", page.charts(shown), caption, paper))


def curve_of(rows: Sequence[Mapping[str, Any]], key: str, label: str) -> Curve:
    """A number of `metrics.jsonl` by epoch. Rows where the number is missing or not finite are left out.

    Args:
      rows: of the file.
      key: of the number.
      label: for people.
    """
    points = [(row["epoch"], row[key]) for row in rows if is_finite(row.get(key)) and is_finite(row.get("epoch"))]
    return Curve(label, [epoch for epoch, _ in points], [value for _, value in points], noisy=key in NOISY)


def _in_words(curve: Curve) -> str:
    """A curve as text: its ends and its smallest value."""
    values, epochs = curve.values, curve.epochs
    if len(values) == 1:
        return f"{curve.label} {values[0]:.4g}"
    least = int(np.argmin(values))
    return (
        f"{curve.label} from {values[0]:.4g} at epoch {epochs[0]:.3g} to {values[-1]:.4g} at epoch {epochs[-1]:.3g},"
        f" smallest {values[least]:.4g} at epoch {epochs[least]:.3g}"
    )

"""Batches of 128 to 8192 on CIFAR-10, with LARS and without."""

import math

from alexnet_jax.drawing.canvas import Figure
from alexnet_jax.experiments import curves, tables
from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run

BATCHES = (128, 512, 2048, 8192)
SEEDS = range(2)
WAYS = ("SGD", "LARS")
# The rate grows with the root of the batch, as Krizhevsky 2014 advises. With LARS it is, times the trust coefficient, a
# share of the kernel's norm.
SGD, LARS, TRUST = 0.01, 1.75, 0.001


def runs(rows: Rows) -> list[Run]:
    """Two seeds of each."""
    variants = {}
    for batch in BATCHES:
        for name, rate, trust in zip(WAYS, (SGD, LARS), (None, TRUST), strict=True):
            rate *= math.sqrt(batch / BATCHES[0])
            variants[f"{name}, {batch}"] = {
                "batch_size": batch,
                "lars_trust": trust,
                "rates": {"all": {"kernel": [[0, rate]], "bias": [[0, 0.02]]}},
            }
    base = {"network.recipe": "batch_norm", "warmup_epochs": 2.0}
    return grid("large_batch", "cifar10_alexnet", variants, SEEDS, base=base)


def make_table(rows: Rows) -> str:
    """Errors by batch size, and their difference."""
    errors = {
        (way, batch): tables.ten_views(tables.of_run(rows, f"{way}, {batch}")) for way in WAYS for batch in BATCHES
    }
    lines = []
    for batch in BATCHES:
        sgd, lars = (errors[way, batch] for way in WAYS)
        difference = tables.of_means(sgd, lars, tables.pooled([sgd, lars]))
        cells = (tables.spread(errors[way, batch]) + tables.diverged(rows, f"{way}, {batch}") for way in WAYS)
        lines.append([f"{batch:,}", *cells, difference.words(), f"{len(sgd)}, {len(lars)}"])
    ways = (f"{way}, ten views, %" for way in WAYS)
    head = ["images an update", *ways, "difference of the means, points (95 %)", "runs"]
    return tables.table(head, lines)


def pictures(rows: Rows) -> dict[str, tuple[Figure, str]]:
    """Error by batch size, a line for each seed."""
    lines = {
        way: [
            points
            for seed in SEEDS
            if (points := [(batch, error) for batch in BATCHES for error in _error(rows, f"{way}, {batch}", seed)])
        ]
        for way in WAYS
    }
    if not all(lines.values()):
        return {}
    ticks = dict(xticks=BATCHES, xticklabels=[f"{batch:,}" for batch in BATCHES])
    axes = dict(xscale="log", **ticks, xlabel="images an update", ylabel="test error, ten views", ylim=(0, None))
    text = "Test error on CIFAR-10 by images an update, from 128 to 8,192: solid lines for SGD, dashed lines for LARS"
    return {"large_batch": (curves.draw(lines, axes), text)}


def _error(rows: Rows, name: str, seed: int) -> list[float]:
    return tables.ten_views([row for row in tables.of_run(rows, name) if row["seed"] == seed])


LARGE_BATCH = Experiment(
    "large_batch",
    "Large batches on CIFAR-10",
    "nothing. You et al. 2017 train AlexNet with batches of up to 8192 images with LARS, and lose no accuracy.",
    runs,
    make_table,
    "The network has batch norm, as in You et al. The rate grows with the root of the batch and was not chosen for"
    " each size, not even for 128 images, so a difference may come from the rates. Up to 2,048 images LARS has the"
    " smaller error, and loses less with larger batches; but each step costs accuracy, unlike in You et al., who train"
    " for 100 epochs of ImageNet. A batch of 8,192 leaves 122 updates in 20 epochs, of which the warm-up takes 12:"
    " neither way learns much, and two seeds leave open which learns less. A larger batch makes fewer updates here,"
    " and the table cannot separate the two effects.",
    pictures,
)

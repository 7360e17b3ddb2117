"""Initial values of the code and of the paper's text: does the signal survive the layers, and does the loss fall?"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_jax.drawing.canvas import Figure
from alexnet_jax.experiments import tables
from alexnet_jax.experiments.curves import draw
from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run

SEEDS = range(3)
UPDATES = 2000
SMOOTHED = 8  # points of a running mean
LABELS = {"original": "0.03 in conv3 to conv5 (code)", "paper": "0.01 in all layers (paper)"}
VARIANTS = {recipe: {"network.recipe": recipe} for recipe in ("original", "paper")}
BASE = {
    "network.he_init": False,
    "network.width": 1.0,
    "photometry.standardize": False,
    "schedule": "steps",
    "num_epochs": UPDATES * 128 / 50_000,
    "dataset.eval_split": "test[:1000]",  # no error is read
}


def runs(rows: Rows) -> list[Run]:
    """Three seeds of each."""
    return grid("initialisation", "cifar10_alexnet", VARIANTS, SEEDS, base=BASE, measure=("losses", "signal"))


def make_table(rows: Rows) -> str:
    """The signal at the start, layer by layer, and the training loss along the run."""
    finished = {name: tables.of_run(rows, name) for name in VARIANTS}
    layers = next(list(row["signal"]) for row in rows if "signal" in row)
    signal = [
        [f"`{name}`", *(tables.spread([row["signal"][layer] for row in each], 3, 1.0) for layer in layers)]
        for name, each in finished.items()
    ]
    steps = [UPDATES * part // 4 for part in range(1, 5)]
    loss = [
        [f"`{name}`", *(tables.spread([_loss_at(row, step) for row in each], 2, 1.0) for step in steps)]
        for name, each in finished.items()
    ]
    return (
        tables.table(["standard deviation of the output", *layers], signal)
        + "\n\n"
        + tables.table(["training loss, nats", *(f"update {step:,}" for step in steps)], loss)
    )


def pictures(rows: Rows) -> dict[str, tuple[Figure, str]]:
    """Training loss by update, a line for each run."""
    curves = {
        label: [_smooth(row["losses"]) for row in tables.of_run(rows, recipe)] for recipe, label in LABELS.items()
    }
    axes = dict(xlabel="update", ylabel="training loss, nats", xlim=(0, UPDATES), ylim=(0, None))
    figure = draw(curves, axes)
    text = "Training loss by update: dashed lines for the paper's initial values, solid ones for those of the code"
    return {"initialisation": (figure, text)}


def _smooth(losses: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Each point with the mean of its loss and those before it: a batch's own loss is noisy."""
    return [
        (step, statistics.mean(loss for _, loss in losses[max(0, place + 1 - SMOOTHED) : place + 1]))
        for place, (step, _) in enumerate(losses)
    ]


def _loss_at(row: Mapping[str, Any], step: int) -> float:
    """The loss of the last point up to a step."""
    return [loss for at, loss in row["losses"] if at <= step][-1]


INITIALISATION = Experiment(
    "initialisation",
    "Initial values: the code's and the paper's",
    "all kernels start with a standard deviation of 0.01 (section 5). The code of 2012 has 0.03 for conv3 to conv5.",
    runs,
    make_table,
    "Both networks have full width, pixels from 0 to 255 and the rates of 2012. `paper` also differs from `original` in"
    " the order of its operations and in alpha. A deviation is taken over images, places and units together, so that"
    " the constant of a unit counts, too, and not the images' part alone. 2,000 updates show a start, and no end. With"
    " the paper's values the signal shrinks to a twelfth from conv2 to conv4, and the loss falls below that of"
    " guessing, 2.3 nats, after 360 to 490 updates; with the code's, after 80. Curves are running means of eight"
    " points.",
    pictures,
)

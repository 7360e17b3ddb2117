"""Initial values of the code and of the paper's text: does the signal survive the layers, and does the loss fall?"""

import math
from collections.abc import Sequence

from alexnet_jax.drawing.canvas import Figure
from alexnet_jax.experiments import tables
from alexnet_jax.experiments.curves import draw
from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run

SEEDS = range(3)
UPDATES = 2000
AVERAGED = 100  # updates of a mean loss: a batch's own loss is noisy
GUESSING = math.log(10)  # nats: ten classes
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
        [
            f"`{name}`",
            *(tables.spread([mean_loss(row["losses"], step) for row in each], 2, 1.0) for step in steps),
            _span([below_guessing(row["losses"]) for row in each]),
        ]
        for name, each in finished.items()
    ]
    head = ["training loss, nats", *(f"update {step:,}" for step in steps), "below guessing from update"]
    return f"{tables.table(['standard deviation of the output', *layers], signal)}\n\n{tables.table(head, loss)}"


def pictures(rows: Rows) -> dict[str, tuple[Figure, str]]:
    """Training loss by update, a line for each run."""
    curves = {
        label: [
            [(step, mean_loss(row["losses"], step)) for step, _ in row["losses"]] for row in tables.of_run(rows, recipe)
        ]
        for recipe, label in LABELS.items()
    }
    axes = dict(xlabel="update", ylabel="training loss, nats", xlim=(0, UPDATES), ylim=(0, None))
    figure = draw(curves, axes)
    text = "Training loss by update: dashed lines for the paper's initial values, solid ones for those of the code"
    return {"initialisation": (figure, text)}


def mean_loss(losses: Sequence[Sequence[float]], step: float) -> float:
    """The mean loss of the `AVERAGED` updates up to a step, or of all where there are fewer.

    Args:
      losses: for each point its update, and the mean loss of the updates since the point before.
      step: the last update of the mean.
    """
    total = count = before = 0.0
    for at, loss in losses:
        updates = max(0.0, min(at, step) - max(before, step - AVERAGED))
        total, count, before = total + updates * loss, count + updates, at
    return total / count


def below_guessing(losses: Sequence[Sequence[float]]) -> float | None:
    """The update from which on every point's loss is below that of guessing; None: the last one is not."""
    below: float | None = None
    for at, loss in losses:
        if loss >= GUESSING:
            below = None
        elif below is None:
            below = at
    return below


def _span(steps: Sequence[float | None]) -> str:
    """`350 to 480`, from the first run to the last; `-` where a run's loss is not below that of guessing."""
    known = sorted(step for step in steps if step is not None)
    return tables.span(known, "{:,.0f}") if known and len(known) == len(steps) else "-"


INITIALISATION = Experiment(
    "initialisation",
    "Initial values: the code's and the paper's",
    "all kernels start with a standard deviation of 0.01 (section 5). The code of 2012 has 0.03 for conv3 to conv5.",
    runs,
    make_table,
    "Both networks have full width, pixels from 0 to 255 and the rates of 2012. `paper` also differs from `original` in"
    " the order of its operations, in alpha and in the second norm of layer 2, which it lacks. A deviation is taken"
    " over images, places and units together, so differences between units count, too. 2,000 updates show a start,"
    " and no end. With the paper's values the signal shrinks to a twelfth from conv2 to conv4. A loss is the mean of"
    f" the last {AVERAGED} updates, also in the picture. Guessing has a loss of 2.3 nats. From the update in the last"
    " column on, every logged loss of a run is below that.",
    pictures,
)

"""Response norm on CIFAR-10: the footnote's 13 % and 11 %, and the two networks that differ in the norms alone."""

from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run
from alexnet_jax.experiments.tables import errors, of_run, paired

VARIANTS = ("13pct", "11pct", "no_norm")  # `11pct` is also `norm`
SEEDS = range(3)
SHORT = [[0, 0.001], [50, 0.0001], [55, 0.00001]]  # epochs; the long schedule has 500, 10 and 10
SCHEDULE = {
    "num_epochs": 60.0,
    "rates": {"all": {"kernel": SHORT, "bias": [[epoch, 2 * rate] for epoch, rate in SHORT]}},
}


def runs(rows: Rows) -> list[Run]:
    """Three seeds of each network."""
    return [
        run
        for seed in SEEDS
        for variant in VARIANTS
        for run in grid(
            "response_norm",
            f"cifar10:{variant}",
            {variant: SCHEDULE},
            [seed],
            measure=("curve",),
        )
    ]


def make_table(rows: Rows) -> str:
    """Errors, and the difference that the norms alone make."""
    table = errors(rows, VARIANTS, {"13pct": "13", "11pct": "11"})
    difference = paired(of_run(rows, "11pct"), of_run(rows, "no_norm"))
    if not difference.seeds:
        return table
    return (
        f"{table}\n\nWithout the norms, and nothing else changed, the error with ten views differs by"
        f" {difference.words()} points from that of `11pct` ({difference.seeds} seeds; the paper: about 2)."
    )


RESPONSE_NORM = Experiment(
    "response_norm",
    "Response norm on CIFAR-10",
    "A four-layer network has a test error of 13 % without and of 11 % with response norm (section 3.3).",
    runs,
    make_table,
    "The runs have 60 epochs, with the last ten at a tenth and a hundredth of the rate, where the log has 520; errors"
    " are therefore larger than the log's. The rates of biases fall as well, which in the log stay. `13pct` and `11pct`"
    " differ in more than the norms: layer local3 is twice as wide in `11pct`. The ten views here include mirror images;"
    " 2012 took nine without.",
)

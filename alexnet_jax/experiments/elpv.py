"""The default config on ELPV: five seeds, and their ensemble."""

from alexnet_jax.experiments import tables
from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run

SEEDS = range(5)


def runs(rows: Rows) -> list[Run]:
    """Five seeds."""
    return grid("elpv", "default", {"default": {}}, SEEDS, measure=("curve",))


ELPV = Experiment(
    "elpv",
    "The default config on ELPV",
    "nothing: ELPV is of 2018.",
    runs,
    lambda rows: tables.errors(rows, ["default"]),
    "TODO",
)

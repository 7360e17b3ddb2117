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
    "No field was chosen on these 654 photographs. Published for other splits: 17.6 % by an SVM, 11.6 and 9.9 % by"
    " networks that were pre-trained on ImageNet (VGG-19, ResNet-152). Their split is not on record, and they count a"
    " cell of uncertain label otherwise: experts' doubtful 'functional' is 'defective' there with a weight of 1/3, and"
    " 'functional' here. So the figures are neighbours, and no comparison.",
)

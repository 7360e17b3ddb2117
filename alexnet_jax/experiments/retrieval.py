"""Retrieval on CIFAR-10: short codes of features beside exact search in features and in pixels."""

import dataclasses

from alexnet_jax.experiments import ablations, tables
from alexnet_jax.experiments.experiment import Experiment, Rows
from alexnet_jax.experiments.run import Run

SEEDS = range(3)
NAME = ablations.WHOLE


def runs(rows: Rows) -> list[Run]:
    """Three seeds of the ablations' whole network."""
    whole = (run for run in ablations.CIFAR10.runs(()) if run.name == NAME and run.seed in SEEDS)
    return [
        dataclasses.replace(run, experiment="retrieval", measure=("codes",), trained_by=run.experiment) for run in whole
    ]


def make_table(rows: Rows) -> str:
    """Recall and share of the query's class, by way of search."""
    finished = tables.of_run(rows, NAME)
    lines = [
        [way, *(tables.spread([row["codes"][way][column] for row in finished]) for column in range(3))]
        for way in finished[0]["codes"]
    ]
    head = ["", "of the 10 neighbours among the first 10, %", "among the first 100, %", "same class among 10, %"]
    return tables.table(head, lines)


RETRIEVAL = Experiment(
    "retrieval",
    "Retrieval and short codes on CIFAR-10",
    "Euclidean distances of the last hidden layer find alike images where pixels do not, and an autoencoder should make"
    " short codes of these features, better than of pixels (section 6.1).",
    runs,
    make_table,
    "Queries are 1,000 test images, the database 10,000 training images; codes have 64 bits. Recall takes the"
    " exact neighbours in this network's features as right; the share of the query's class does not depend on them. As"
    " the paper expects, codes of the features find pictures of the query's class nearly as often as the features do,"
    " and codes of pixels find as few as the pixels themselves. Random hyperplanes do as well by class, and find fewer"
    " of the exact neighbours. The networks are `original` of the ablations. Each was trained on the images of the"
    " database, so its features fit them better than new images. Codes of other lengths and deeper autoencoders are not"
    " measured.",
)

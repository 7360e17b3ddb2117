"""Batches of 128 to 8192 on CIFAR-10, with LARS and without."""

import math

from alexnet_jax.experiments import tables
from alexnet_jax.experiments.experiment import Experiment, Rows, grid
from alexnet_jax.experiments.run import Run

BATCHES = (128, 512, 2048, 8192)
SEEDS = range(2)
# The rate grows with the root of the batch, as Krizhevsky 2014 advises. With LARS it is, times the trust coefficient, a
# share of the kernel's norm.
SGD, LARS, TRUST = 0.01, 1.75, 0.001


def runs(rows: Rows) -> list[Run]:
    """Two seeds of each."""
    variants = {}
    for batch in BATCHES:
        for name, rate, trust in (("SGD", SGD, None), ("LARS", LARS, TRUST)):
            rate *= math.sqrt(batch / BATCHES[0])
            variants[f"{name}, {batch}"] = {
                "batch_size": batch,
                "lars_trust": trust,
                "rates": {"all": {"kernel": [[0, rate]], "bias": [[0, 0.02]]}},
            }
    base = {"network.recipe": "batch_norm", "warmup_epochs": 2.0}
    return grid("large_batch", "cifar10_alexnet", variants, SEEDS, base=base)


def make_table(rows: Rows) -> str:
    """Errors by batch size."""
    lines = [[f"{batch:,}", *(_cell(rows, f"{name}, {batch}") for name in ("SGD", "LARS"))] for batch in BATCHES]
    return tables.table(["images an update", "SGD, ten views, %", "LARS, ten views, %"], lines)


def _cell(rows: Rows, name: str) -> str:
    return tables.spread(tables.ten_views(tables.of_run(rows, name))) + tables.diverged(rows, name)


LARGE_BATCH = Experiment(
    "large_batch",
    "Large batches on CIFAR-10",
    "nothing. You et al. 2017 train AlexNet with batches of up to 8192 images with LARS, and lose no accuracy.",
    runs,
    make_table,
    "The network has batch norm, as in You et al. The rate grows with the root of the batch and was not chosen for each"
    " size. Up to 2,048 images LARS has the smaller error, and loses less with larger batches; but each step costs"
    " accuracy, unlike in You et al., who train for 100 epochs of ImageNet. A batch of 8,192 leaves 122 updates in 20"
    " epochs, of which the warm-up takes 12: neither way learns much, and LARS less.",
)

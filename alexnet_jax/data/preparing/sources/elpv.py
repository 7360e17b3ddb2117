"""ELPV: 2,624 grey photographs (300x300, electroluminescence) of solar cells, functional or defective.

The images are those of the PyPI package `elpv-dataset` (Buerhop-Lutz et al. 2018; Deitsch et al. 2019), CC BY-NC-SA
4.0, which pip installs with this package.
"""

import csv
import hashlib
import importlib.resources
import os
from collections import defaultdict
from typing import Any

from alexnet_jax.data.preparing.listing import Item, Listing, read_span

SIDE = 300  # pixels along a side of a photograph
TEST_SHARE = 0.25
CLASSES = ["functional", "defective"]
DEFECTIVE_FROM = 0.5  # probability of a defect, by experts: 0, 1/3, 2/3 or 1


def elpv() -> Listing:
    """The photographs with two classes, in two splits.

    The source has no split. Here a quarter of each group of (probability, module type) is the test split, chosen by a
    hash of the file name: the same on every machine.
    """
    rows = read_labels()
    held_out = hold_out(rows)
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    for name, probability, _ in rows:
        file = os.fspath(_folder() / name)
        stat = os.stat(file)
        item = Item(name, int(probability >= DEFECTIVE_FROM), file, 0, stat.st_size, stat.st_mtime_ns)
        splits["test" if name in held_out else "train"].append(item)
    return Listing(
        "elpv",
        CLASSES,
        {split: _in_order(split, items) for split, items in splits.items()},
        read_span,
        [],
        "Solar cells photographed by electroluminescence: is the cell functional or defective?",
        homepage="https://github.com/zae-bayern/elpv-dataset",
        license="CC BY-NC-SA 4.0",
        ordered=True,
    )


def _in_order(split: str, items: list[Item]) -> list[Item]:
    """The items by the MD5 of split and name.

    The first versions of this data set were written by TFDS, which shuffles by that hash (`core/hashing.py`). The
    order decides which images `train[:25%]` holds and the batches of a seed, so that all published results depend on
    this order.
    """
    return sorted(items, key=lambda item: hashlib.md5(f"{split}{item.name}".encode(), usedforsecurity=False).digest())


def _folder() -> Any:
    return importlib.resources.files("elpv_dataset") / "data"


def read_labels() -> list[tuple[str, float, str]]:
    """`(file name, probability of a defect, module type)` of every cell, in the package's order."""
    lines = _folder().joinpath("labels.csv").read_text().splitlines()
    return [
        (name, float(probability), kind)
        for name, probability, kind in csv.reader((" ".join(line.split()) for line in lines), delimiter=" ")
    ]


def hold_out(rows: list[tuple[str, float, str]]) -> set[str]:
    """File names of the test split: of each (probability, module type) the quarter with the smallest hashes."""
    groups = defaultdict(list)
    for name, probability, kind in rows:
        groups[probability, kind].append(name)
    return {
        name
        for names in groups.values()
        for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[
            : round(TEST_SHARE * len(names))
        ]
    }

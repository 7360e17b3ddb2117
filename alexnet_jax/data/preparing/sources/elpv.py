"""ELPV: 2,624 grey photographs (300x300, electroluminescence) of solar cells, functional or defective."""

import csv
import hashlib
import importlib.resources
import io
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data.geometry import resize_and_crop

TEST_SHARE = 0.25
DEFECTIVE_FROM = 0.5  # probability of a defect, by experts: 0, 1/3, 2/3 or 1


class Elpv(tfds.core.GeneratorBasedBuilder):
    """Images of the PyPI package `elpv-dataset` (Buerhop-Lutz et al. 2018; Deitsch et al. 2019), CC BY-NC-SA 4.0.

    The source has no split. Here a quarter of every group of (probability, module type) is held out, chosen by a hash
    of the file name: fixed, whatever the machine.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=str(size), description=f"{size}x{size} pixels, JPEG of quality 95")
        for size in (64, 128, 160, 256)
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = int(self.builder_config.name)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Solar cells photographed by electroluminescence: is the cell functional or defective?",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=["functional", "defective"]),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zae-bayern/elpv-dataset",
            license="CC BY-NC-SA 4.0",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded: pip has installed the images
        rows = read_labels()
        held_out = hold_out(rows)
        return {
            "train": self._generate_examples([row for row in rows if row[0] not in held_out]),
            "test": self._generate_examples([row for row in rows if row[0] in held_out]),
        }

    def _generate_examples(self, rows: list[tuple[str, float, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        size = int(self.builder_config.name)
        folder = _folder()
        for name, probability, _ in rows:
            with folder.joinpath(name).open("rb") as file, Image.open(file) as image:
                small = resize_and_crop(image.convert("RGB"), size)
            encoded = io.BytesIO()
            small.save(encoded, "JPEG", quality=95)
            label = "defective" if probability >= DEFECTIVE_FROM else "functional"
            yield name, {"image": encoded.getvalue(), "label": label, "name": name}


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
    """File names of the test split: of every (probability, module type) the quarter whose hashes are smallest."""
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

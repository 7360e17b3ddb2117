"""Habits and files of users that are odd and right: a whole way from pictures to an error rate."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import make
from alexnet_jax.data.preparing.sources.folder import folder
from tests.conftest import ROOT

pytestmark = pytest.mark.long

CONFIG = """from tests.configs import tiny


def get_config():
    config = tiny.get_config()
    config.name = "odd"
    config.dataset.name = "odd"
    config.dataset.train_split = "train"
    config.dataset.eval_split = "validation"
    config.dataset.classes = None
    config.batch_size = 32
    config.num_epochs = 3.0
    config.evaluate_every = config.save_every = 2.0
    return config
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable:
    """Runs a command of `python -O` with 64 file descriptors, in a folder whose name has spaces."""
    place = tmp_path / "a place with spaces"
    place.mkdir()

    def start(module: str, *arguments: str) -> str:
        words = [sys.executable, "-O", "-m", f"alexnet_jax.{module}", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"}
        limited = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *words]
        done = subprocess.run(limited, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start.place = place
    return start


def draw(root: Path) -> list[bytes]:
    """A tree with classes that differ in case or in a blank at the end, and names that are long or no UTF-8."""
    pixels, names = (
        np.random.default_rng(0),
        [b"x" * 246 + b".jpg", b"caf\xe9.jpg", "\u2603 \u00fc.JPG".encode(), b"'\"$(x).jpg"],
    )
    for label, kind in enumerate(("cat", "Cat", "cat ")):
        for split in ("train", "validation"):
            place = root / split / kind
            place.mkdir(parents=True)
            for name in names:
                image = Image.fromarray(pixels.integers(0, 80, (70, 70, 3), np.uint8) + np.uint8(60 * label))
                image.save(place / "new.png")  # a PNG that is named .jpg
                (place / "new.png").rename(os.fsdecode(os.path.join(os.fsencode(place), name)))
    return names


def test_odd_names_commands_and_places(run: Callable):
    names = draw(run.place / "pictures")
    out = run("prepare", "folder", "odd", "--source_dir=pictures", "--data_dir=data", "--size=64", "--processes=1")
    assert out.startswith("24 images of 3 classes in train, validation\n")
    assert open_dataset("odd", str(run.place / "data")).class_names == ["Cat", "cat", "cat "]
    (run.place / "odd.py").write_bytes(CONFIG.replace("\n", "\r\n").encode())  # as an editor of Windows saves it
    out = run("main", "--config=odd.py", "--data_dir=data", "--workdir=my run")
    assert "odd: 1 updates of 32 images" in out, "the batch is larger than the data, which it holds 2.7 times"
    assert json.loads((run.place / "my run/data.json").read_text())["classes"] == ["Cat", "cat", "cat "]
    result = json.loads((run.place / "my run/result.json").read_text())
    assert result["count"] == 3 * len(names)
    (run.place / "my run").rename(run.place / "moved to \u00fc")
    out = run("evaluate", "--workdir=moved to \u00fc", "--data_dir=data", "--json")
    assert json.loads(out)["top1"] == pytest.approx(result["top1_1_views"])


def test_three_thousand_classes(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for number in range(3000):
        place = tmp_path / "tree/train" / f"class {number}"
        place.mkdir(parents=True)
        os.link(tmp_path / "one.png", place / "1.png")
    said: list[str] = []
    listing = folder("many", str(tmp_path / "tree"), say=said.append)
    assert said == [
        "no split but 'train', and no image is held out, for each class has one alone; to measure an error, add images"
        " to the classes"
    ]
    made = make.prepare(
        listing, make.Options(size=8), str(tmp_path / "data"), record={}, progress=lambda done, todo: None
    )
    features = tfds.builder_from_directory(made).info.features
    assert features["label"].names == sorted(f"class {number}" for number in range(3000))

"""A folder of pictures in classes, drawn at random, and the arrays of a file of features."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, seed: int, size: tuple[int, int] = (70, 60)) -> None:
    """A picture of noise in a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def tree_in(folder: Path) -> Path:
    """Eleven pictures in two classes, and a broken one."""
    for number in range(11):
        draw(folder / ("b ä" if number % 3 else "a") / f"{number:02}.png", number)
    (folder / "a" / "99.jpg").write_bytes(b"no picture")
    return folder


def content(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)

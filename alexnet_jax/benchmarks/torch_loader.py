"""The peer: JPEG files through `torch.utils.data.DataLoader` with Pillow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alexnet_jax.data.pipeline import usable_cores

# The customary mean and standard deviation of ImageNet, of pixels 0 to 1.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Files(torch.utils.data.Dataset):
    """Random crops and flips of images in files.

    Args:
      files: of the images.
      crop_size: pixels along a side.
      floats: normalised floats in place of bytes.
    """

    def __init__(self, files: list[Path], crop_size: int, *, floats: bool):
        self._files, self._crop_size, self._floats = files, crop_size, floats

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The image as bytes `[crop, crop, 3]` or floats `[3, crop, crop]`, and a label."""
        with Image.open(self._files[index]) as image:
            pixels = image.convert("RGB")
        top, left = np.random.randint(0, pixels.height - self._crop_size + 1, 2)  # noqa: NPY002 -- torch seeds it
        pixels = pixels.crop((left, top, left + self._crop_size, top + self._crop_size))
        if np.random.rand() < 0.5:  # noqa: NPY002
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(pixels))
        if self._floats:
            tensor = tensor.permute(2, 0, 1).contiguous().float().div_(255).sub_(MEAN).div_(STD)
        return tensor, index % 2


class Shuffled(torch.utils.data.Sampler):
    """A number of images: epoch after epoch, each in a new order."""

    def __init__(self, images: int, files: int):
        self._images, self._files = images, files

    def __iter__(self) -> Iterator[int]:
        epochs = -(-self._images // self._files)
        order = [index for _ in range(epochs) for index in torch.randperm(self._files).tolist()]
        return iter(order[: self._images])


def loader(files: list[Path], *, crop_size: int, batch_size: int, batches: int, floats: bool) -> Iterator[Any]:
    """Batches from one worker process a core."""
    made = torch.utils.data.DataLoader(
        Files(files, crop_size, floats=floats),
        batch_size=batch_size,
        sampler=Shuffled(batches * batch_size, len(files)),
        num_workers=usable_cores(),
        multiprocessing_context="spawn",  # JAX runs threads, and a forked process would not have them
    )
    iterator = iter(made)
    try:
        yield from iterator
    finally:
        for _ in iterator:  # workers that are stopped in the middle of their work print errors
            pass

"""A split kept on the device: decoded once, and cut there into the same batches as from disk.

Batch k is the same function of `(seed, k)`. The host draws the examples and the crops, some 50 bytes an image; the
device cuts the pixels out. Crops and flips have the bytes of `geometry.cut`. Pixels of rotated and scaled crops, which
Pillow interpolates there in float64, differ by one level of 255 at most.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from alexnet_jax.data import geometry
from alexnet_jax.data.batch import Batch
from alexnet_jax.data.filling import Randomness, Source, TrainPlan, pixels_of
from alexnet_jax.data.pipeline import usable_cores

PART = 50  # examples that a thread decodes at once


class Resident(NamedTuple):
    """The examples of a split: NumPy arrays on the host, then arrays on the devices."""

    image: UInt8[Array, "N h w 3"]
    label: Int32[Array, " N"]


class Crops(NamedTuple):
    """The crops of a batch, drawn on the host. `...` is a number of batches, or nothing.

    Attributes:
      example: index in the split.
      top, left: the first pixel.
      flip: whether to mirror left to right.
      upside_down: whether to mirror top to bottom.
      transposed: whether to exchange rows and columns, before mirroring.
      matrix: from a pixel of the crop to a place in the image: `x' = m0 x + m1 y + m2`, `y' = m3 x + m4 y + m5`, with
        pixel centres at one half.
      margin: pixels by which the image is mirrored at its border; beyond them the crop is black.
    """

    example: Int32[Array, "... B"]
    top: Int32[Array, "... B"]
    left: Int32[Array, "... B"]
    flip: Bool[Array, "... B"]
    upside_down: Bool[Array, "... B"]
    transposed: Bool[Array, "... B"]
    matrix: Float[Array, "... B 6"]
    margin: Int32[Array, "... B"]


def load(source: Source, *, say: Callable[[int], None] = lambda done: None) -> Resident:
    """Decodes all examples of a split, in one thread a core.

    Args:
      source: examples.
      say: called with the number of examples done, each multiple of `PART` and the last.
    """
    first = pixels_of(source[0])
    images = np.empty((len(source), *first.shape), np.uint8)
    labels = np.empty(len(source), np.int32)

    def fill(part: range) -> int:
        for index in part:
            example = source[index]
            images[index], labels[index] = pixels_of(example), example["label"]
        return part.stop

    parts = (range(first, min(first + PART, len(source))) for first in range(0, len(source), PART))
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done in pool.map(fill, parts):
            say(done)
    arrays: Any = images, labels
    return Resident(*arrays)


def draw_crops(randomness: Randomness, plan: TrainPlan, *, steps: range, image_size: int) -> Crops:
    """This shard of the crops of the batches `steps`, `[steps, part of the batch]`: those of `train_batches`.

    Args:
      randomness: of the plan's seed.
      plan: of the batches.
      steps: numbers of the batches.
      image_size: pixels along a side of the images.
    """
    crop_size = plan.crop_size
    places = plan.places(np.asarray(steps)[:, None], range(plan.rows))
    example = randomness.examples(places).astype(np.int32)
    draws = randomness.crops(places // plan.crop_group)
    crop = geometry.random_crop(
        image_size, crop_size, draws, rotation=plan.rotation, scale=plan.scale, symmetries=plan.symmetries
    )
    # As in `geometry.cut`, about the centre of the crop, in coordinates of the image without its margin.
    half, middle = (crop_size - 1) / 2, crop_size / 2
    a, b = np.cos(crop.angle) / crop.factor, np.sin(crop.angle) / crop.factor
    reach = np.ceil(half * (np.abs(a) + np.abs(b))).astype(int) + 1
    margin = np.minimum(np.maximum(0, reach - int(half)), image_size - 1)
    x, y = crop.left + middle, crop.top + middle
    matrix = np.stack([a, b, x - (a + b) * middle, -b, a, y + (b - a) * middle], axis=-1)
    fields: dict[str, Any] = dict(
        example=example,
        top=crop.top,
        left=crop.left,
        flip=crop.flip,
        upside_down=crop.upside_down,
        transposed=crop.transposed,
        matrix=matrix.astype(np.float32),
        margin=margin.astype(np.int32),
    )
    return Crops(**fields)


def cut(resident: Resident, crops: Crops, *, crop_size: int, jitter: bool, symmetries: int = 2) -> Batch:
    """The batch of the crops; pure, part of the compiled update.

    Args:
      resident: the split.
      crops: of one batch.
      crop_size: pixels along a side.
      jitter: whether crops are rotated or scaled.
      symmetries: as in `geometry.symmetry`.
    """
    one = _interpolated if jitter else _sliced
    images = jax.vmap(lambda crop: one(resident.image, crop, crop_size))(crops)
    if symmetries > 2:  # else neither happens, which the compiler does not know
        images = jnp.where(crops.transposed[:, None, None, None], images.swapaxes(1, 2), images)
        images = jnp.where(crops.upside_down[:, None, None, None], images[:, ::-1], images)
    images = jnp.where(crops.flip[:, None, None, None], images[:, :, ::-1], images)
    return Batch(images, resident.label[crops.example], jnp.ones(crops.example.shape, bool))


def _sliced(images: UInt8[Array, "N h w 3"], crop: Crops, size: int) -> UInt8[Array, "{size} {size} 3"]:
    start = (crop.example, crop.top, crop.left, jnp.zeros((), jnp.int32))
    return lax.dynamic_slice(images, start, (1, size, size, 3))[0]


def _interpolated(images: UInt8[Array, "N h w 3"], crop: Crops, size: int) -> UInt8[Array, "{size} {size} 3"]:
    """Bilinear interpolation as in Pillow's `transform`, of the image mirrored at its border."""
    height, width = images.shape[1:3]
    y, x = jnp.meshgrid(*[jnp.arange(size, dtype=jnp.float32) + 0.5] * 2, indexing="ij")
    m = crop.matrix
    x, y = m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]
    margin = crop.margin.astype(jnp.float32)
    inside = (x >= -margin) & (x < float(width) + margin) & (y >= -margin) & (y < float(height) + margin)
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    dx, dy = (x - left)[..., None], (y - top)[..., None]

    def at(row: Array, column: Array) -> Array:
        row, column = (
            _mirrored(jnp.clip(index.astype(jnp.int32), -crop.margin, length - 1 + crop.margin), length)
            for index, length in ((row, height), (column, width))
        )
        return images[crop.example, row, column].astype(jnp.float32)

    above = at(top, left) * (1 - dx) + at(top, left + 1) * dx
    below = at(top + 1, left) * (1 - dx) + at(top + 1, left + 1) * dx
    mixed = above * (1 - dy) + below * dy
    # Pillow cuts off the fraction. Sums of equal numbers may lie a rounding below them here.
    return jnp.where(inside[..., None], jnp.floor(mixed + 1e-3), 0).astype(jnp.uint8)


def _mirrored(index: Int32[Array, "..."], length: int) -> Int32[Array, "..."]:
    index = jnp.abs(index)
    return jnp.where(index > length - 1, 2 * (length - 1) - index, index)


def eval_batch(resident: Resident, first: Int32[Array, ""], *, batch_size: int, views: int, crop_size: int) -> Batch:
    """The evaluation batch of the examples from `first` on; rows beyond the split have mask False."""
    place = first + jnp.arange(batch_size, dtype=jnp.int32)
    mask = place < resident.image.shape[0]
    place = jnp.where(mask, place, 0)
    return Batch(geometry.views_of(resident.image[place], crop_size, views), resident.label[place], mask)

"""Batches of training and evaluation images, functions of `(seed, step)`, read by Grain from a prepared data set."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8
from PIL import Image

from alexnet_jax.data import geometry

Source = Sequence[Any]  # of {'image': encoded bytes, 'label': int}, indexed at random

THREADS = 2


class Batch(NamedTuple):
    """Images with what is known of them: on the host this shard's NumPy arrays, on the devices the global batch."""

    image: UInt8[Array, "B *views h w 3"]
    label: Int32[Array, "B"]
    mask: Bool[Array, "B"]  # False: padding, counts for nothing


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts of every batch: a coordinate on the mesh's data axis."""

    index: int = 0
    count: int = 1


def _pillow(encoded: bytes) -> geometry.Pixels:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def _fastest_decoder() -> Callable[[bytes], geometry.Pixels]:
    try:
        import simplejpeg
    except ImportError:
        return _pillow
    return lambda encoded: simplejpeg.decode_jpeg(encoded) if simplejpeg.is_jpeg(encoded) else _pillow(encoded)


decode = _fastest_decoder()


def train_batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int,
    shard: Shard,
    crop_size: int,
    rotation: float = 0.0,
    scale: float = 0.0,
) -> Iterator[Batch]:
    """This shard of the batches `start_step`, `start_step + 1`, ... without end.

    The examples are an infinite sequence, shuffled anew each epoch; batch k is its k-th run of `batch_size`, and may
    lie across two epochs. Crop and flip of an example are drawn for its place in the sequence (paper section 4.1; in
    2012 one draw served 32 consecutive images, A/convdata_jpeg.py:238-246).

    Args:
      source: examples.
      seed: of order, crops and flips.
      batch_size: of the global batch.
      start_step: the first batch's number.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
      rotation, scale: as in `geometry.jittered_crop`.
    """

    def example(place: int, stored: Any) -> tuple[geometry.Pixels, np.int32]:
        rng = np.random.default_rng((seed, place))
        image = geometry.jittered_crop(decode(stored["image"]), crop_size, rng, rotation=rotation, scale=scale)
        return geometry.random_flip(image, rng), np.int32(stored["label"])

    sequence = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None).map_with_index(example)
    parts = sequence.batch(batch_size // shard.count)[start_step * shard.count + shard.index :: shard.count]
    for image, label in parts.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2)):
        everything: Any = np.ones(len(label), bool)
        yield Batch(image, label, everything)


def eval_batches(source: Source, *, batch_size: int, views: int, shard: Shard, crop_size: int) -> Iterator[Batch]:
    """This shard of the batches that hold every example once, in order; the last is padded with mask False.

    Args:
      source: examples.
      batch_size: of the global batch, in examples.
      views: 1 or 10 an example; images are `[batch, views, crop, crop, 3]`.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
    """

    def example(index: int) -> tuple[UInt8[np.ndarray, "views h w 3"], np.int32, bool]:
        if index >= len(source):
            return np.zeros((views, crop_size, crop_size, 3), np.uint8), np.int32(0), False
        stored = source[index]
        image = geometry.views_of(decode(stored["image"]), crop_size, views)
        return image, np.int32(stored["label"]), True

    padded = -(-len(source) // batch_size) * batch_size
    examples = grain.MapDataset.range(padded).map(example)
    parts = examples.batch(batch_size // shard.count)[shard.index :: shard.count]
    for image, label, mask in parts.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2)):
        yield Batch(image, label, mask)

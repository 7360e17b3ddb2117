"""Batches of training and evaluation images, functions of `(seed, step)`, read from a prepared data set."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Float

from alexnet_jax.data import geometry
from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.decoders import Decode, decode


@runtime_checkable
class Source(Protocol):
    """Examples `{'image': encoded bytes or pixels, 'label': int}`, indexed at random."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


AHEAD = 2  # prefetched batches
FOREVER = 2**40  # batches; Grain needs a finite range


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
    crop_group: int = 1,
    decode: Decode = decode,
) -> Iterator[Batch]:
    """This shard of the batches `start_step`, `start_step + 1`, ... without end.

    The examples form an infinite sequence with a new shuffle each epoch. Batch k is the k-th run of `batch_size`
    examples, which may lie across two epochs. The crop and flip of an example are drawn for the place in the sequence
    (paper section 4.1).

    Args:
      source: examples.
      seed: of order, crops and flips.
      batch_size: of the global batch.
      start_step: the first batch's number.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
      crop_group: consecutive images that share one crop and flip; 32 in 2012 (A/convdata_jpeg.py:238-246).
      decode: from JPEG to pixels.
      rotation, scale: as in `geometry.random_crop`.
    """
    randomness, part = Randomness(seed, len(source)), batch_size // shard.count

    def fill(batch: Batch, step: int) -> None:
        first = step * batch_size + shard.index * part
        for row in range(part):
            example = source[randomness.example(first + row)]
            image, out = _pixels(example, decode), np.asarray(batch.image[row])
            draws = randomness.crop((first + row) // crop_group)
            crop = geometry.random_crop(image.shape[0], crop_size, draws, rotation=rotation, scale=scale)
            geometry.cut(image, crop, out)
            batch.label[row], batch.mask[row] = example["label"], True

    yield from _batches(fill, range(start_step, FOREVER), part, (crop_size, crop_size, 3))


def eval_batches(
    source: Source, *, batch_size: int, views: int, shard: Shard, crop_size: int, decode: Decode = decode
) -> Iterator[Batch]:
    """This shard of the batches that hold each example once, in order; the last batch is padded with mask False.

    Args:
      source: examples.
      batch_size: of the global batch, in examples.
      views: 1 or 10 an example; images are `[batch, views, crop, crop, 3]`.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
      decode: from JPEG to pixels.
    """
    part = batch_size // shard.count

    def fill(batch: Batch, number: int) -> None:
        for row in range(part):
            index = number * batch_size + shard.index * part + row
            batch.mask[row] = index < len(source)
            if not batch.mask[row]:
                batch.image[row], batch.label[row] = 0, 0
                continue
            stored = source[index]
            batch.image[row] = geometry.views_of(_pixels(stored, decode), crop_size, views)
            batch.label[row] = stored["label"]

    count = -(-len(source) // batch_size)
    yield from _batches(fill, range(count), part, (views, crop_size, crop_size, 3))


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Randomness:
    """Random order and crops by place in the sequence, functions of `(seed, stream, number)`.

    The numbers are drawn in blocks, since creating a generator is slow. Grain's shuffle takes 40 us an example under
    the interpreter's lock, a lookup in a permutation almost nothing.
    """

    ORDER, CROPS = 0, 1  # streams
    BLOCK = 1024

    def __init__(self, seed: int, examples: int):
        self._examples = examples
        # A batch may lie across two epochs, or across several epochs of a very small data set.
        self._order = functools.lru_cache(4)(
            lambda epoch: np.random.default_rng((seed, self.ORDER, epoch)).permutation(examples)
        )
        self._draws = functools.lru_cache(16)(
            lambda block: np.random.default_rng((seed, self.CROPS, block)).random((self.BLOCK, geometry.DRAWS))
        )

    def example(self, place: int) -> int:
        """The example at a place; each epoch has another permutation."""
        epoch, within = divmod(place, self._examples)
        return int(self._order(epoch)[within])

    def crop(self, group: int) -> Float[np.ndarray, "draws"]:
        """Random numbers in [0, 1) for the crop of a group of places."""
        block, within = divmod(group, self.BLOCK)
        return self._draws(block)[within]


def _pixels(stored: Any, decode: Decode) -> geometry.Pixels:
    image = stored["image"]
    return image if isinstance(image, np.ndarray) else decode(image)


def _batches(fill: Callable[[Batch, int], None], numbers: range, size: int, shape: tuple[int, ...]) -> Iterator[Batch]:
    """The batches `numbers`, each written by `fill(batch, number)`, in one thread a core.

    Decoders release the interpreter's lock, and the rest is a tenth of an image's time; `python -m
    alexnet_jax.benchmark input` measures an upper bound for processes in place of threads. A thread fills a whole
    batch, because Grain takes about 40 us for each element, whatever its size.
    """

    def make(number: int) -> Batch:
        arrays: Any = np.empty((size, *shape), np.uint8), np.empty(size, np.int32), np.empty(size, bool)
        batch = Batch(*arrays)
        fill(batch, number)
        return batch

    batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
    yield from batches.to_iter_dataset(grain.ReadOptions(num_threads=threads(), prefetch_buffer_size=AHEAD))

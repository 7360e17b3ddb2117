"""The content of a batch: examples, crops and flips by place, functions of `(seed, step)`.

Worker processes import this file: no JAX, no TFDS.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from alexnet_jax.data import geometry
from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.decoders import decode

Fill = Callable[[Batch, int, range], None]  # writes some rows of the batch with that number


@runtime_checkable
class Source(Protocol):
    """Examples `{'image': encoded bytes or pixels, 'label': int}`, indexed at random; `'name'` is there or not."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Randomness:
    """Random order and crops by place in the sequence, functions of `(seed, stream, number)`.

    The numbers are drawn in blocks, since creating a generator is slow.
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

    def examples(self, places: Int[np.ndarray, "*any"]) -> Int[np.ndarray, "*any"]:
        """The example at each place in the sequence; each epoch has another permutation."""
        epochs, within = np.divmod(places, self._examples)
        chosen = np.empty(places.shape, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = self._order(int(epoch))[within[here]]
        return chosen

    def crops(self, groups: Int[np.ndarray, "*any"]) -> Float[np.ndarray, "*any draws"]:
        """Random numbers in [0, 1) for the crop of each group of places."""
        blocks, within = np.divmod(groups, self.BLOCK)
        numbers = np.empty((*groups.shape, geometry.DRAWS))
        for block in np.unique(blocks):
            here = blocks == block
            numbers[here] = self._draws(int(block))[within[here]]
        return numbers


@dataclasses.dataclass(frozen=True)
class Plan:
    """The definition of a sequence of batches, without the examples.

    Attributes:
      batch_size: of the global batch, in examples.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
    """

    batch_size: int
    shard: Shard
    crop_size: int

    @property
    def rows(self) -> int:
        """Examples of this process's part of a batch."""
        return self.batch_size // self.shard.count

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of the image of one example."""
        raise NotImplementedError

    @property
    def row_bytes(self) -> int:
        """Size of the image of one example."""
        return math.prod(self.row_shape)

    def fill(self, source: Source) -> Fill:
        """The function that writes rows of a batch."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TrainPlan(Plan):
    """Batches of training. The examples form an infinite sequence, of which batch k is the k-th run of `batch_size`.

    Attributes:
      seed: of order, crops and flips.
      rotation, scale: as in `geometry.random_crop`.
      crop_group: consecutive images that share one crop and flip; 32 in 2012 (A/convdata_jpeg.py:238-246).
      symmetries: as in `geometry.symmetry`.
      mirrored: whether crops are mirrored left to right here, which is a fifth of what a raw image costs. Otherwise a
        device mirrors those that `flips` names.
    """

    seed: int
    rotation: float = 0.0
    scale: float = 0.0
    crop_group: int = 1
    symmetries: int = 2
    mirrored: bool = True

    @property
    def row_shape(self) -> tuple[int, ...]:
        """A crop."""
        return self.crop_size, self.crop_size, 3

    def fill(self, source: Source) -> Fill:
        """Writes random crops."""
        randomness = Randomness(self.seed, len(source))

        def fill(batch: Batch, number: int, rows: range) -> None:
            places = self.places(number, rows)
            examples = randomness.examples(places).tolist()
            draws = randomness.crops(places // self.crop_group)
            crops: list[geometry.Crop] = []  # drawn together, which takes a tenth of the time
            for place, row in enumerate(rows):
                example = source[examples[place]]
                image, out = pixels_of(example), np.asarray(batch.image[row])
                crops = crops or self._crops(image.shape[0], draws)
                geometry.cut(image, crops[place], out)
                batch.label[row], batch.mask[row] = example["label"], True

        return fill

    def flips(self, randomness: Randomness, number: int) -> Bool[np.ndarray, " rows"]:
        """Which rows of the batch with that number are mirrored left to right.

        Args:
          randomness: of the plan's seed.
          number: of the batch.
        """
        draws = randomness.crops(self.places(number, range(self.rows)) // self.crop_group)
        return geometry.symmetry(draws[:, geometry.SYMMETRY], self.symmetries)[0]

    def places(self, number: int | Int[np.ndarray, "steps 1"], rows: range) -> Int[np.ndarray, "*steps rows"]:
        """The places of some rows of a batch, or of each of several batches, in the sequence of examples."""
        return number * self.batch_size + self.shard.index * self.rows + np.asarray(rows, np.int64)

    def _crops(self, image_size: int, draws: Float[np.ndarray, "rows draws"]) -> list[geometry.Crop]:
        """A crop for each row; the images of a data set have one size."""
        crops = geometry.random_crop(
            image_size,
            self.crop_size,
            draws,
            rotation=self.rotation,
            scale=self.scale,
            symmetries=self.symmetries,
        )
        crops = crops._replace(flip=crops.flip & self.mirrored)
        return [geometry.Crop(*fields) for fields in zip(*map(np.ndarray.tolist, crops), strict=True)]


@dataclasses.dataclass(frozen=True)
class EvalPlan(Plan):
    """Batches that hold each example once, in order; the last batch is padded with mask False.

    Attributes:
      views: of an example, one of `geometry.VIEWS`.
    """

    views: int

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The views of an example."""
        return self.views, self.crop_size, self.crop_size, 3

    def fill(self, source: Source) -> Fill:
        """Writes views, or zeros for padding."""

        def fill(batch: Batch, number: int, rows: range) -> None:
            for row in rows:
                index = number * self.batch_size + self.shard.index * self.rows + row
                batch.mask[row] = index < len(source)
                if not batch.mask[row]:
                    batch.image[row], batch.label[row] = 0, 0
                    continue
                stored = source[index]
                batch.image[row] = geometry.views_of(pixels_of(stored), self.crop_size, self.views)
                batch.label[row] = stored["label"]

        return fill


def to_json(plan: Plan) -> str:
    """The plan as text, for another process."""
    return json.dumps([type(plan).__name__, dataclasses.asdict(plan)])


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote."""
    name, values = json.loads(text)
    values["shard"] = Shard(**values["shard"])
    return {kind.__name__: kind for kind in (TrainPlan, EvalPlan)}[name](**values)


def pixels_of(stored: Any) -> geometry.Pixels:
    """The pixels of an example of a `Source`, which is stored raw or encoded."""
    image = stored["image"]
    return image if isinstance(image, np.ndarray) else decode(image)


def name_of(stored: Any, *, errors: str = "replace") -> str | None:
    """The name of an example of a `Source`; None: the data set has no names.

    Args:
      stored: the example.
      errors: what becomes of bytes that are no UTF-8, as `bytes.decode` has it.
    """
    name = stored.get("name")
    return None if name is None else name.decode("utf-8", errors)

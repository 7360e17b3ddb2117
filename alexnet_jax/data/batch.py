"""Batches, the input of every step, and the parts of a batch that the processes load.

Worker processes import this file: no JAX.
"""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Int32, UInt8

if TYPE_CHECKING:  # the import of `Array` imports JAX
    from jaxtyping import Array


class Batch(NamedTuple):
    """Images and labels: on the host the NumPy arrays of a shard, on the devices the global batch."""

    image: "UInt8[Array, 'B *views h w 3']"
    label: "Int32[Array, ' B']"
    mask: "Bool[Array, ' B']"  # False: padding, counted by no metric


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count` equal parts of every batch: a coordinate on the mesh's data axis."""

    index: int = 0
    count: int = 1

"""What the pipeline hands to a step."""

import dataclasses
from typing import NamedTuple

from jaxtyping import Array, Bool, Int32, UInt8


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

"""The batches of an evaluation: how large they are, and their results as the devices have them."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from alexnet_jax.data.batch import Batch
from alexnet_jax.experiment.reading import MIN_CROPS
from alexnet_jax.runtime import processes


def one_behind(batches: Iterable[Batch], run: Callable[[Batch], Any]) -> Iterator[Any]:
    """What `run` gives for each batch, on the host: read only when the devices have the next batch to work on."""
    running = None
    for number, batch in enumerate(itertools.chain(batches, [None])):
        processes.enter(f"batch {number} of an evaluation", slow=number == 0)  # which compiles
        before, running = running, None
        if batch is not None:
            running = run(batch)
        if before is not None:
            yield jax.device_get(before)


def examples_at_once(crops: int, views: int, parts: int) -> int:
    """Examples of a batch with so many crops, at least `MIN_CROPS`, which so many devices share evenly."""
    return max(1, max(crops, MIN_CROPS) // views // parts) * parts

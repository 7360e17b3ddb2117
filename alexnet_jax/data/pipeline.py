"""Batches of training and evaluation images, functions of `(seed, step)`, read from a prepared data set."""

import collections
import contextlib
import itertools
import math
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.batch import Batch
from alexnet_jax.data.filling import EvalPlan, Plan, Source, TrainPlan
from alexnet_jax.data.records import Examples
from alexnet_jax.data.workers import Workers

AHEAD = 2  # prefetched batches
FOREVER = 2**40  # batches
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in so many of the clock


def train_batches(
    source: Source, plan: TrainPlan, *, start_step: int, workers: Workers | None = None
) -> Iterator[Batch]:
    """This shard of the batches `start_step`, `start_step + 1`, ... without end.

    The examples form an infinite sequence with a new shuffle each epoch. Batch k is the k-th run of `batch_size`
    examples, which may lie across two epochs. The crop and flip of an example are drawn for the place in the sequence
    (paper section 4.1).

    Args:
      source: examples.
      plan: of the batches.
      start_step: the first batch's number.
      workers: make the batches, where the source lies in files; None: threads. The bytes are the same.
    """
    return _batches(source, plan, range(start_step, FOREVER), workers)


def eval_batches(source: Source, plan: EvalPlan, *, workers: Workers | None = None) -> Iterator[Batch]:
    """This shard of the batches that hold each example once, in order; the last batch is padded with mask False.

    Args:
      source: examples.
      plan: of the batches; images are `[batch, views, crop, crop, 3]`.
      workers: as in `train_batches`.
    """
    return _batches(source, plan, range(-(-len(source) // plan.batch_size)), workers)


def usable_cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no container, or the limit `max`
        quota, period = CPU_LIMIT.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def _batches(source: Source, plan: Plan, numbers: range, workers: Workers | None) -> Iterator[Batch]:
    """The batches `numbers` of a plan, from worker processes where there are some."""
    if workers is not None and isinstance(source, Examples):
        stream = workers.stream(source.files, plan)
        if stream is not None:
            return stream.batches(numbers)
    return _from_threads(source, plan, numbers)


def _from_threads(source: Source, plan: Plan, numbers: range) -> Iterator[Batch]:
    """The batches `numbers` of a plan. Each is made by all cores, a thread for each, while earlier ones are used.

    Decoders release the interpreter's lock, and the rest is a tenth of an image's time.
    """
    fill, left, cores = plan.fill(source), iter(numbers), usable_cores()
    bounds = [plan.rows * part // cores for part in range(cores + 1)]
    pool = ThreadPoolExecutor(cores, "input")
    # The finalizer also runs at exit, while the modules that `shutdown` uses still exist. `shutdown` does not wait for
    # the threads, because a read from storage may hang.
    close = weakref.finalize(pool, pool.shutdown, wait=False, cancel_futures=True)

    def begin(count: int) -> Iterator[tuple[Batch, list[Future[None]]]]:
        for number in itertools.islice(left, count):
            shape = plan.rows, *plan.row_shape
            arrays: Any = np.empty(shape, np.uint8), np.empty(plan.rows, np.int32), np.empty(plan.rows, bool)
            batch = Batch(*arrays)
            yield batch, [pool.submit(fill, batch, number, range(*part)) for part in itertools.pairwise(bounds)]

    try:
        making = collections.deque(begin(AHEAD))
        while making:
            batch, parts = making.popleft()
            making.extend(begin(1))
            for part in parts:
                part.result()
            yield batch
    finally:
        close()

"""Rates of what makes batches, by the clock and by the processors' time, which a busy machine disturbs less."""

import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass(frozen=True)
class Rate:
    """Images a second.

    Attributes:
      wall: by the clock.
      cpu: by the time of all processors together, this process's and its children's: of one core kept busy.
    """

    wall: float
    cpu: float


def median(rates: list[Rate]) -> Rate:
    """Of several rounds."""
    return Rate(statistics.median(rate.wall for rate in rates), statistics.median(rate.cpu for rate in rates))


def rate_of(start: Callable[[], Iterator[Any]], *, batch_size: int, batches: int, warm_up: int = 4) -> Rate:
    """The rate of the iterator that `start` makes, after its first batches.

    Args:
      start: makes the iterator.
      batch_size: images a batch.
      batches: how many are timed.
      warm_up: how many are not: those that may be waiting already when the clock starts.
    """
    iterator = start()
    for _ in range(warm_up):
        next(iterator)
    begun, used = time.perf_counter(), _processor_seconds()
    for _ in range(batches):
        next(iterator)
    elapsed, used = time.perf_counter() - begun, _processor_seconds() - used
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    images = batch_size * batches
    return Rate(images / elapsed, images / max(used, 1 / TICKS))


def _processor_seconds() -> float:
    """Of this process and of its living children."""
    children = sum(_processor_seconds_of(child.pid) for child in multiprocessing.active_children() if child.pid)
    return time.process_time() + children


def _processor_seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

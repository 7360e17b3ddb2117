"""Rates of input pipelines, by the clock and by processor time; other work on the machine disturbs the latter less."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.errors import UsageError

PROC = Path("/proc/self")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def check_system() -> None:
    """Checks that `/proc` exists, from which memory and processor time are read.

    Raises:
      UsageError: `/proc` does not exist, as on macOS.
    """
    if not PROC.exists():
        raise UsageError(
            f"this measurement reads memory and processor time from {PROC}, which Linux alone has; `benchmark run` and"
            " `benchmark start` do not need it"
        )


@dataclasses.dataclass(frozen=True)
class Rate:
    """Images a second.

    Attributes:
      wall: by the clock.
      cpu: by the processor time of this process and its children: the rate of one core that does nothing else.
    """

    wall: float
    cpu: float


def median(rates: list[Rate]) -> Rate:
    """The median of several rounds, for each rate."""
    return Rate(statistics.median(rate.wall for rate in rates), statistics.median(rate.cpu for rate in rates))


def rate_of(start: Callable[[], Iterator[Any]], *, batch_size: int, batches: int, warm_up: int = 4) -> Rate:
    """The rate of an iterator of batches, after its first batches.

    Args:
      start: makes the iterator.
      batch_size: images a batch.
      batches: number of timed batches.
      warm_up: number of batches before these. The iterator may have made them before the clock starts.
    """
    iterator = start()
    for _ in range(warm_up):
        next(iterator)
    used, begun = _processor_seconds(), time.perf_counter()
    for _ in range(batches):
        next(iterator)
    elapsed, used = time.perf_counter() - begun, _processor_seconds() - used
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    images = batch_size * batches
    return Rate(images / elapsed, images / max(used, 1 / TICKS))


def _processor_seconds() -> float:
    """Processor time of this process and of its living children."""
    return time.process_time() + sum(map(_processor_seconds_of_child, PROC.parent.glob("[0-9]*/stat")))


def _processor_seconds_of_child(stat: Path) -> float:
    """Processor time of the process whose file this is; 0: the process is no child of this one, or gone."""
    try:
        fields = stat.read_bytes().rsplit(b")", 1)[1].split()  # a name of a process may end within a letter
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS if int(fields[1]) == os.getpid() else 0.0


def resident_bytes() -> int:
    """Memory of this process, bytes."""
    return int((PROC / "statm").read_text().split()[1]) * PAGE

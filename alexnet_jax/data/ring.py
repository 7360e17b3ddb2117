"""Memory that processes share: a ring of slots, each of which holds a batch.

The memory is a file without a name, which its processes alone keep alive: nothing is left behind, however they end, and
the size of `/dev/shm` does not matter. Worker processes import this file: no JAX.
"""

import contextlib
import ctypes
import dataclasses
import errno
import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.batch import Batch
from alexnet_jax.data.filling import Plan

LINE = 64  # bytes by which arrays are aligned: JAX copies others on a CPU
PART = 4 * 2**20  # bytes of images in a part of a batch, at least: some ten milliseconds of work
HELD = 3  # batches in the hands of the consumer
MEMINFO = Path("/proc/meminfo")
MEMORY_LIMITS = (  # of a container, bytes: cgroups of version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclasses.dataclass(frozen=True)
class Ring:
    """The measures of a ring.

    Attributes:
      rows: examples of a batch.
      row_shape: shape of the image of one example.
      parts: into which a batch is divided; one worker fills a part.
      slots: batches: those in the making, so that no worker waits for another, and `HELD` more.
    """

    rows: int
    row_shape: tuple[int, ...]
    parts: int
    slots: int

    @property
    def slot_bytes(self) -> int:
        """Size of a slot, whole pages."""
        return _whole(sum(_whole(size, LINE) for _, _, size in self._fields()), mmap.PAGESIZE)

    @property
    def size(self) -> int:
        """Size of all slots, bytes."""
        return self.slots * self.slot_bytes

    def part(self, number: int) -> range:
        """The rows of a part."""
        return range(self.rows * number // self.parts, self.rows * (number + 1) // self.parts)

    def batch(self, memory: Any) -> Batch:
        """The batch in the memory of a slot. Its arrays keep `memory` alive."""
        arrays: list[Any] = []
        place = 0
        for shape, dtype, size in self._fields():
            arrays.append(np.frombuffer(memory, dtype, size // dtype.itemsize, place).reshape(shape))
            place += _whole(size, LINE)
        return Batch(*arrays)

    def _fields(self) -> list[tuple[tuple[int, ...], np.dtype, int]]:
        """Shape, type and bytes of the arrays of a batch."""
        fields = []
        for shape, kind in (((self.rows, *self.row_shape), np.uint8), ((self.rows,), np.int32), ((self.rows,), bool)):
            dtype = np.dtype(kind)
            fields.append((shape, dtype, math.prod(shape) * dtype.itemsize))
        return fields


def ring_of(plan: Plan, workers: int) -> Ring:
    """The ring that keeps so many workers busy."""
    part = max(1, PART // plan.row_bytes)
    parts = -(-plan.rows // max(part, 8))
    return Ring(plan.rows, plan.row_shape, parts, slots=1 + -(-3 * workers // (2 * parts)) + HELD)


class Arena:
    """A file without a name that grows by regions.

    Attributes:
      file: its descriptor.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("alexnet_jax")
        else:
            with tempfile.TemporaryFile() as file:
                self.file = os.dup(file.fileno())
        self._end = 0

    def add(self, size: int) -> int:
        """Appends a region, and returns where the region begins.

        Raises:
          OSError: there is no room.
        """
        place, size = self._end, _whole(size, mmap.ALLOCATIONGRANULARITY)
        if size > (room := _room()):
            raise OSError(errno.ENOMEM, f"there is {room / 2**20:,.0f} MiB of free memory")
        os.ftruncate(self.file, place + size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.file, place, size)  # an error now is better than a signal at the first use
        self._end += size
        return place

    def close(self) -> None:
        """Forgets the file."""
        os.close(self.file)


def region(file: int, place: int, size: int) -> mmap.mmap:
    """A region of an arena's file as memory."""
    return mmap.mmap(file, size, offset=place)


def slot(memory: mmap.mmap, ring: Ring, number: int) -> Any:
    """The memory of a slot: an object that lives as long as an array in this memory."""
    return (ctypes.c_ubyte * ring.slot_bytes).from_buffer(memory, number * ring.slot_bytes)


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _room() -> float:
    """Free memory of the machine, or all memory of the container where that is less, bytes."""
    room = math.inf
    with contextlib.suppress(OSError, ValueError):
        lines = MEMINFO.read_text().splitlines()
        room = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), room)
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such cgroup, or the limit `max`
            room = min(room, int(file.read_text()))
    return room

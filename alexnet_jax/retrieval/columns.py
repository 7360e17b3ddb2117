"""Rows of numbers and names on the disk while a table is made: appended in order, read at any place.

The files have no name: the system removes them with the process, however it ends.
"""

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.retrieval.exact_search import rows_at_once


class Scratch:
    """Files for rows, until the end of the block: `with Scratch(folder) as scratch`.

    Args:
      folder: with room for them; None: the system's temporary folder.
    """

    def __init__(self, folder: str | None):
        self._folder, self._files = folder, contextlib.ExitStack()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def open(self) -> BinaryIO:
        """A file without a name.

        Raises:
          UsageError: the folder cannot be written.
        """
        try:
            return self._files.enter_context(tempfile.TemporaryFile(dir=self._folder, buffering=0))
        except OSError as error:
            folder = self._folder or tempfile.gettempdir()
            raise UsageError(f"{folder} cannot be written: {reason_of(error)}; make room, or name another") from error


class Rows:
    """Arrays of one shape and type, one after the other.

    Args:
      scratch: has the file.
      dtype, shape: of a row.
    """

    def __init__(self, scratch: Scratch, dtype: Any, shape: tuple[int, ...] = ()):
        self.dtype, self.shape = np.dtype(dtype), shape
        self._bytes = self.dtype.itemsize * math.prod(shape)
        self._file, self._count = scratch.open(), 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Writes rows at the end.

        Raises:
          UsageError: the disk is full, or fails.
        """
        rows = np.ascontiguousarray(rows, self.dtype)
        assert rows.shape[1:] == self.shape, (rows.shape, self.shape)
        _append(self._file, rows.tobytes())
        self._count += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to `stop`, or to the last row."""
        count = max(0, min(stop, self._count) - start)
        data = _read(self._file, start * self._bytes, count * self._bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def take(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows, in the order of the indices."""
        return np.concatenate([self.read(int(i), int(i) + 1) for i in indices] or [self.read(0, 0)])

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in order, as many at a time as memory should hold."""
        size = rows_at_once(math.prod(self.shape))
        for start in range(0, self._count, size):
            yield self.read(start, start + size)


class Names:
    """Texts of any length, one after the other.

    Args:
      scratch: has the files.

    Attributes:
      longest: letters.
    """

    def __init__(self, scratch: Scratch):
        self._file, self._ends = scratch.open(), Rows(scratch, np.int64)
        self._size = self.longest = 0

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, names: Sequence[str]) -> None:
        """Writes names at the end, in the form of `as_text`.

        Raises:
          UsageError: the disk is full, or fails.
        """
        texts = [as_text(name) for name in names]
        self.longest = max([self.longest, *map(len, texts)])
        data = [text.encode() for text in texts]
        _append(self._file, b"".join(data))
        ends = self._size + np.cumsum([len(each) for each in data], dtype=np.int64)
        self._ends.append(ends)
        self._size = int(ends[-1]) if len(ends) else self._size

    def read(self, start: int, stop: int) -> list[str]:
        """The names from `start` to `stop`, or to the last name."""
        ends = self._ends.read(max(start - 1, 0), stop).tolist()
        ends = ends if start else [0, *ends]
        data = _read(self._file, ends[0], ends[-1] - ends[0]) if ends else b""
        return [data[a - ends[0] : b - ends[0]].decode() for a, b in itertools.pairwise(ends)]

    def take(self, indices: np.ndarray) -> list[str]:
        """Some names, in the order of the indices."""
        return [self.read(int(i), int(i) + 1)[0] for i in indices.ravel()]


def as_text(name: str) -> str:
    r"""A name that every file can hold: a byte of a file's name that is no UTF-8 becomes a text such as `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _append(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise UsageError(
            f"the rows cannot be kept on the disk until they are complete: {reason_of(error)}; make room, or write the"
            " output to another disk"
        ) from error


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    data = os.pread(file.fileno(), count, start)
    assert len(data) == count, "the file has lost bytes since they were written"
    return data

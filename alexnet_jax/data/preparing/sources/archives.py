"""Tar archives, read in place. Nothing is extracted: no member can write a file anywhere."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from alexnet_jax.data.errors import SourceError

MAX_HEADER = 2**20  # bytes; tarfile trusts the size that a header claims


class Member(NamedTuple):
    """An entry of an archive.

    Attributes:
      name: in the archive.
      offset: of the first byte, counted in the file on disk.
      size: bytes.
      problem: the reason not to use the entry, or None.
    """

    name: str
    offset: int
    size: int
    problem: str | None


class _Window(io.RawIOBase):
    """A part of a file, as a file: an archive within an archive."""

    def __init__(self, path: str, offset: int, size: int):
        self._file = open(path, "rb")  # noqa: SIM115 -- closed by close()
        self._offset, self._size, self._place = offset, size, 0

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._place if size < 0 else min(size, self._size - self._place)
        if wanted > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {wanted:,} bytes")
        self._file.seek(self._offset + self._place)
        data = self._file.read(max(0, wanted))
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()


def members(path: str, offset: int = 0, size: int | None = None) -> Iterator[Member]:
    """The entries of the archive in `path`, or in `size` bytes of `path` from `offset`; folders are left out.

    Raises:
      SourceError: the bytes are not an archive, or the archive is cut off.
    """
    size = os.path.getsize(path) - offset if size is None else size
    with _Window(path, offset, size) as window:
        try:
            with tarfile.open(fileobj=window, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                    if info.isdir():
                        continue
                    yield Member(info.name, offset + info.offset_data, info.size, _problem(info))
        except tarfile.TarError as error:
            raise SourceError(
                f"{path} is not a whole tar archive ({error}; the file has {os.path.getsize(path):,} bytes);"
                " download the archive again and compare the checksum"
            ) from error


def _problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link, not a file"
    if not info.isreg() or info.sparse is not None:
        return "not a plain file"
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "its path leaves the archive"
    return None

"""Small files that are whole or absent, whenever the process or the machine stops."""

import contextlib
import errno
import os

from etils import epath

NO_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # file systems without `fsync`


def write_atomically(file: epath.Path, text: str | bytes) -> None:
    """Writes a file beside, a text as UTF-8, flushes it to the disk and renames it.

    Without the flush a power cut can leave an empty file: file systems may store the rename before the bytes.

    Raises:
      OSError: the file cannot be written; the file from before is unchanged.
    """
    part = file.parent / f"{file.name}.part"
    try:
        with part.open("wb") as opened:
            opened.write(text.encode() if isinstance(text, str) else text)
            opened.flush()
            if "://" not in str(file):
                _flush(opened.fileno())
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()  # a full disk needs the room
        raise


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise


def is_file(path: epath.Path) -> bool:
    """Whether the path is a plain file or a link to one: the read of a device or a pipe might never end."""
    return path.is_file() if "://" in str(path) else os.path.isfile(path)  # epath counts a device as a file

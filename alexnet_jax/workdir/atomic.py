"""Small files that are whole or absent, whenever the process or the machine stops."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from alexnet_jax.errors import UsageError, reason_of, words_of

NO_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # file systems without `fsync`


def write_atomically(file: epath.Path, text: str | bytes) -> None:
    """Writes a file beside, a text as UTF-8, flushes it to the disk and renames it.

    Raises:
      OSError: the file cannot be written; the file from before is unchanged.
    """
    with open_atomically(file) as opened:
        opened.write(text.encode() if isinstance(text, str) else text)


@contextlib.contextmanager
def open_atomically(file: epath.Path) -> Iterator[BinaryIO]:
    """Opens a file to be written piece by piece. It has its name when the block is through.

    The pieces go into a file beside. It is flushed to the disk before it is renamed: without that, a power cut can
    leave an empty file, because file systems may store the rename before the bytes. After an error in the block the
    file from before is unchanged.

    Raises:
      OSError: the file cannot be written.
    """
    part = part_of(file)
    try:
        with contextlib.ExitStack() as stack:
            with storage_errors(file):
                opened = stack.enter_context(part.open("wb"))
            yield opened
            with storage_errors(file):
                opened.flush()
                if "://" not in str(file):
                    _flush(opened.fileno())
                stack.close()
                part.replace(file)
    except BaseException:  # also Ctrl-C
        with contextlib.suppress(OSError), storage_errors(file):
            part.unlink()  # a full disk needs the room
        raise


@contextlib.contextmanager
def storage_errors(file: epath.Path) -> Iterator[None]:
    """Makes an `OSError` of what the package of a storage raises, such as for a 503 of `gs://`.

    Raises:
      OSError: the storage fails.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or "://" not in str(file):
            raise
        raise OSError(words_of(error)) from error


@contextlib.contextmanager
def writing(file: object, advice: str = "") -> Iterator[None]:
    """Names the file that the block cannot write.

    Args:
      file: its path.
      advice: what helps, such as `name another file`; empty: nothing is known.

    Raises:
      UsageError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = f"{file} cannot be written: {reason_of(error)}"
        raise UsageError(f"{reason}; {advice}" if advice else reason) from error


def part_of(file: epath.Path) -> epath.Path:
    """The file beside, which has the bytes until they are complete."""
    return file.parent / f"{file.name}.part"


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise

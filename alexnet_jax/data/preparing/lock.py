"""A lock on the folder of an unfinished data set: two runs never write the same files."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet_jax.data.errors import DatasetError
from alexnet_jax.errors import NO_LOCKS

LINE_EVERY = 30.0  # seconds between two lines about the wait
TRY_EVERY = 0.2  # seconds; a call that waits for the lock would let no signal end the wait


@contextlib.contextmanager
def locked(work: Path, *, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the folder `work`, which is made where it is missing, until this run leaves or dies.

    The lock holds on one machine, and over NFS between Linux machines.

    Args:
      work: an unfinished data set.
      wait: wait for another run, else fail.
      say: takes a line about the wait, and a warning where the file system has no locks.

    Raises:
      DatasetError: another run holds the folder.
    """
    line_at = -LINE_EVERY
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            file = (work / "lock").open("w")
        except FileNotFoundError:  # another run has just finished, and removed the folder
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not wait:
                    raise DatasetError(f"another run is preparing {work}; wait for that run to end") from error
                if time.monotonic() - line_at >= LINE_EVERY:
                    say(f"waiting for another run, which is preparing {work}")
                    line_at = time.monotonic()
                time.sleep(TRY_EVERY)
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                say(f"warning: the file system of {work} has no locks; prepare this data set in one run at a time")
            if _is_at(work / "lock", file.fileno()):
                yield
                return


def _is_at(path: Path, file: int) -> bool:
    """Whether the open file still has the path: a run that finishes removes the lock that another run waits for."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False

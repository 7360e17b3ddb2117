"""Standard output, whose reader may leave before a command ends, as `head` does."""

import contextlib
import os
import select
import sys
from collections.abc import Callable

READER_LEFT = 128 + 13  # exit status, as of a program that SIGPIPE ends


def has_lost_reader() -> bool:
    """Whether standard output is a pipe without a reader: a `BrokenPipeError` may also be that of another pipe."""
    number = _number()
    if number is None:
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def write(text: str, *, end: str = "\n", stop: Callable[[], object] | None = None) -> None:
    """Prints at once.

    Args:
      text: to print.
      end: after the text.
      stop: called where the reader has left, so that what runs is saved and ends.

    Raises:
      BrokenPipeError: the reader has left, and there is no `stop`.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        if stop is None:
            raise
        discard()
        with contextlib.suppress(BrokenPipeError):
            print("standard output has no reader; the run is saved and ends", file=sys.stderr)
        stop()


def discard() -> None:
    """Discards what is written to standard output from now on: Python flushes it at its exit, and would fail again."""
    number = _number()
    if number is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _number() -> int | None:
    """The file descriptor of standard output; None: it was closed at the start, or is no file."""
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None

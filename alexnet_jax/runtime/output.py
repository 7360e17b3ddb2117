"""Standard output, whose reader may leave before a command ends, as `head` does, and whose disk may be full."""

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from alexnet_jax.errors import reason_of

READER_LEFT = 128 + 13  # exit status, as of a program that SIGPIPE ends


def has_lost_reader() -> bool:
    """Whether standard output is a pipe without a reader: a `BrokenPipeError` may also be that of another pipe."""
    number = _number(sys.stdout)
    if number is None:
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def write(text: str, *, end: str = "\n", stop: Callable[[], object] | None = None) -> None:
    """Prints at once. After a failed print, such as on a full disk, what runs goes on, and nothing more is printed.

    Args:
      text: to print.
      end: after the text.
      stop: called where the reader has left, so that what runs is saved and ends.

    Raises:
      OSError: it cannot be printed, and there is no `stop`.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        if stop is None:
            raise
        discard()
        if isinstance(error, BrokenPipeError):
            warn("standard output has no reader; the run is saved and ends")
            stop()
        else:
            warn(f"standard output cannot be written ({reason_of(error)}); the run goes on without it")


def say(line: str, *, end: str = "\n") -> None:
    """Prints a line that is no result. Where it cannot be printed, as on a full disk, it goes to standard error.

    Raises:
      BrokenPipeError: the reader has left.
    """
    try:
        print(line, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        warn(line)


def warn(line: str) -> None:
    """Prints a line on standard error, if that can be written."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def discard() -> None:
    """Sends standard output to the null device, since Python flushes standard output at exit and would fail again."""
    _discard(sys.stdout)


def drop_unwritten_errors() -> None:
    """Drops what standard error could not take, as on a full disk. Python flushes it at exit, and would fail again."""
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: Any) -> None:
    number = _number(stream)
    if number is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _number(stream: Any) -> int | None:
    """The file descriptor of a standard stream; None: the stream was closed at the start, or is no file."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None

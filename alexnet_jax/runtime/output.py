"""Standard output, whose reader may leave before a command ends, as `head` does."""

import os
import select
import sys

READER_LEFT = 128 + 13  # exit status, as of a program that SIGPIPE ends


def has_lost_reader() -> bool:
    """Whether standard output is a pipe without a reader: a `BrokenPipeError` may also be that of another pipe."""
    number = _number()
    if number is None:
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def discard() -> None:
    """Discards what is written to standard output from now on. Python would fail again at its exit otherwise."""
    number = _number()
    if number is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _number() -> int | None:
    """The file descriptor of standard output; None: it was closed at the start, or is no file."""
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None

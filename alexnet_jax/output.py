"""Standard output, whose reader may leave before a command ends, as `head` does."""

import contextlib
import os
import select
import sys

READER_LEFT = 128 + 13  # exit status, as of a program that SIGPIPE ends


def has_lost_reader() -> bool:
    """Whether standard output is a pipe without a reader: a `BrokenPipeError` may come from a socket, too."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # closed, or no file
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def discard() -> None:
    """Lets everything that is written from here on vanish. Python would fail again at its exit otherwise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

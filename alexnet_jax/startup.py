"""Ctrl-C while a command imports its libraries, which takes seconds. This file imports the standard library alone."""

import contextlib
import os
import signal
from types import FrameType

INTERRUPTED = 130  # exit status


def leave_on_interrupt() -> None:
    """From now on, Ctrl-C ends the process in one line. A process that ignores it, as under `nohup`, goes on to do so.

    As an exception it would end the imports with a page of traceback, or a callback of JAX would swallow it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """From now on, Ctrl-C raises `KeyboardInterrupt` again, after `leave_on_interrupt`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)

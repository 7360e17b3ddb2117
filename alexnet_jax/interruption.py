"""Leaving on SIGTERM and Ctrl-C: remembered when they come, acted on between steps."""

import os
import signal
from types import FrameType

STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130}  # 75: EX_TEMPFAIL, start me again


class Interrupted(SystemExit):
    """The run was asked to leave and has saved; its code is the exit status."""


class Interruption:
    """While entered, a first signal is remembered in `received`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._remember) for number in STATUS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            os._exit(STATUS[self.received])
        self.received = signal.Signals(number)

    def leave(self) -> None:
        """Raises `Interrupted` with the signal's exit status."""
        assert self.received is not None
        raise Interrupted(STATUS[self.received])

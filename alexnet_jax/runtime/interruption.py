"""Leaves on SIGTERM and Ctrl-C: a handler keeps the signal, and all processes act on it between the same two steps."""

import os
import signal
import threading
from types import FrameType
from typing import NoReturn

from jax.sharding import Mesh

from alexnet_jax.errors import TEMPORARY
from alexnet_jax.runtime import processes

STATUS = {signal.SIGTERM: TEMPORARY, signal.SIGINT: 130}


class Interrupted(SystemExit):
    """The run was interrupted, and has saved where there was something to save. The code is the exit status."""


class Interruption:
    """While entered, keeps a first signal in `received`. A second one ends the process at once.

    Before `share` there is nothing to save, and a signal ends a run of one process by `Interrupted`.

    Attributes:
      received: the signal to this process.
      agreed: the signal for which all processes leave.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        self._maximum: processes.DelayedMaximum | None = None
        self._is_shared = False

    def __enter__(self) -> "Interruption":
        # Python gives signals to the main thread alone. A run in another one, as of a notebook's widget, hears none.
        hears = threading.current_thread() is threading.main_thread()
        # What the shell has ignored, as Ctrl-C for a job of a script in the background, stays ignored.
        heard = [number for number in STATUS if hears and signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            os._exit(STATUS[self.received])
        self.received = signal.Signals(number)
        if not self._is_shared and processes.count() == 1:
            raise Interrupted(STATUS[self.received])

    def request(self) -> None:
        """Leaves as after SIGTERM, unless a signal has come already."""
        self.received = self.received or signal.SIGTERM

    def share(self, mesh: Mesh) -> None:
        """From now on a signal to one process counts for all processes of the mesh."""
        self._is_shared = True
        if processes.count() > 1:
            self._maximum = processes.DelayedMaximum(mesh)

    def due(self) -> bool:
        """Whether to leave.

        All processes call it equally often and get the same answer. With several, the answer comes one call later.
        """
        if self.agreed is None:
            number = self._maximum(self.received or 0) if self._maximum else self.received
            self.agreed = signal.Signals(number) if number else None
        return self.agreed is not None

    def leave(self) -> NoReturn:
        """Raises `Interrupted` with the signal's exit status."""
        assert self.agreed is not None
        raise Interrupted(STATUS[self.agreed])

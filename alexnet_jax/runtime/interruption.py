"""Leaving on SIGTERM and Ctrl-C: remembered when they come, acted on between steps, by all processes at the same."""

import os
import signal
from types import FrameType

from jax.sharding import Mesh

from alexnet_jax.runtime import processes

STATUS = {signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGINT: 130}  # EX_TEMPFAIL is 75: start me again


class Interrupted(SystemExit):
    """The run was asked to leave and has saved; its code is the exit status."""


class Interruption:
    """While entered, a first signal is remembered in `received`; a second one ends the process at once.

    Attributes:
      received: by this process.
      agreed: what all processes leave for.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        self._largest: processes.Largest | None = None

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

    def share(self, mesh: Mesh) -> None:
        """From now on a signal to one process is a signal to all that hold the mesh."""
        if processes.count() > 1:
            self._largest = processes.Largest(mesh)

    def due(self) -> bool:
        """Whether to leave. All processes must ask alike, and get the same answer, with several one call late."""
        if self.agreed is None:
            number = self._largest(self.received or 0) if self._largest else self.received
            self.agreed = signal.Signals(number) if number else None
        return self.agreed is not None

    def leave(self) -> None:
        """Raises `Interrupted` with the signal's exit status."""
        assert self.agreed is not None
        raise Interrupted(STATUS[self.agreed])

"""One worker process, as its parent sees it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

KEPT_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a worker ignores them from its first instruction on
PATIENCE = 5.0  # seconds that a worker has to end after its pipes are closed
PACKAGES = str(Path(__file__).parents[2])  # the folder that holds this package
MEMORY = 60 * 2**20  # bytes of a worker beside the ring


class Process:
    """A process that runs `worker.py`, and ends when this process hangs up or dies.

    Args:
      file: of the arena.

    Attributes:
      outstanding: parts of batches that the worker has to fill.
      answers: the descriptor of its answers.

    Raises:
      OSError: it cannot be started.
    """

    def __init__(self, file: int):
        # Modules are found as here, and not in the working directory, where a file may have a module's name.
        path = os.pathsep.join([place or PACKAGES for place in sys.path] + [PACKAGES])
        environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}  # each worker has one core
        command = [sys.executable, "-P", "-m", "alexnet_jax.data.worker", str(file), str(os.getpid())]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, KEPT_SIGNALS)  # which the worker inherits
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[file], env=environment, bufsize=0
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self.outstanding, self._rest = 0, b""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self.answers = self._answers.fileno()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def write(self, message: list[Any]) -> None:
        """Sends a message."""
        self._questions.write(json.dumps(message).encode() + b"\n")

    def read(self) -> list[list[Any]] | None:
        """The answers that are there; None: the worker is dead."""
        data = os.read(self.answers, 2**16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.outstanding -= len(lines)
        return [json.loads(line) for line in lines]

    def hang_up(self) -> None:
        """Closes the pipes, at which the worker ends."""
        self._questions.close()
        self._answers.close()

    def join(self) -> None:
        """Waits until the worker has ended, and kills a worker that does not."""
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ending(self) -> str:
        """How it ended, in words."""
        self.join()
        status = self._process.returncode
        return f"status {status}" if status >= 0 else signal.Signals(-status).name

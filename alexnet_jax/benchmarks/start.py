"""Measures the start: from the command to the first update, with an empty and with a full compilation cache."""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from alexnet_jax.errors import UsageError
from alexnet_jax.network.native import build as native
from alexnet_jax.workdir.progress import FIRST


@dataclasses.dataclass(frozen=True)
class StartResult:
    """Seconds from the command to the first update, median of the rounds.

    Attributes:
      cold: with an empty compilation cache.
      warm: with the compilation cache that the same run has filled.
      rounds: number of rounds.
    """

    cold: float
    warm: float
    rounds: int


def measure(arguments: list[str], *, rounds: int, say: Callable[[str], None]) -> StartResult:
    """Starts training in new processes, and ends each process after its first update.

    Args:
      arguments: of `python -m alexnet_jax.main`, without a workdir.
      rounds: each is a cold start and then a warm start.
      say: called with each line of progress.

    Raises:
      UsageError: the training did not start.
    """
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(_seconds(arguments, cache, say if not cold else None))
            warm.append(_seconds(arguments, cache, None))
        say(f"cold {cold[-1]:.2f} s, warm {warm[-1]:.2f} s")
    return StartResult(statistics.median(cold), statistics.median(warm), rounds)


def _seconds(arguments: list[str], cache: str, say: Callable[[str], None] | None) -> float:
    """The seconds of one start; `say` is called with the line on operations in C."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as workdir:
        begun = time.monotonic()
        command = [sys.executable, "-m", "alexnet_jax.main", f"--workdir={workdir}", *arguments]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if say is not None and line.startswith(tuple(native.LINES.values())):
                        say(line.rstrip())
                    if FIRST in line:
                        return time.monotonic() - begun
            finally:
                process.kill()
    raise UsageError("the training did not start; its message is above")


def describe(result: StartResult) -> list[str]:
    """The result as a line."""
    return [
        f"from command to first update: {result.cold:.1f} s, or {result.warm:.1f} s with a filled compilation cache"
        f" (median of {result.rounds})"
    ]

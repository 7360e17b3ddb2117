"""A command as one process of several: `python -m tests.process main --config=...`, hurried on by the environment.

Writes the metrics of every step; gives a lost process SILENCE seconds instead of 60, and one that hangs STALL. If it is
process WHO it sends itself the signal SEND (a number) when the loop's METHOD is called for the CALL-th time; with 0 it
hangs there, with `error` it raises one.
"""

import os
import runpy
import sys
import time

from alexnet_jax import train
from alexnet_jax.runtime import processes, watchdog
from alexnet_jax.workdir import metrics_log, progress

progress.LINE_EVERY = metrics_log.ROW_EVERY = 0.0
watchdog.BEAT = 1.0
watchdog.SILENCE = float(os.environ.get("SILENCE", watchdog.SILENCE))
watchdog.STALL = float(os.environ.get("STALL", watchdog.STALL))


def arrange(method: str, nth: int) -> None:
    """Before that call of the loop's method, what SEND says."""
    original, calls = getattr(train.Loop, method), 0

    def call(*arguments):
        nonlocal calls
        calls += 1
        if calls == nth and processes.index() == int(os.environ["WHO"]):
            if os.environ["SEND"] == "error":
                raise OSError("unreadable")
            if os.environ["SEND"] == "0":
                time.sleep(10_000)
            os.kill(os.getpid(), int(os.environ["SEND"]))
        return original(*arguments)

    setattr(train.Loop, method, call)


if "SEND" in os.environ:
    arrange(os.environ["METHOD"], int(os.environ["CALL"]))
sys.argv = sys.argv[1:]
runpy.run_module(f"alexnet_jax.{sys.argv[0]}", run_name="__main__", alter_sys=True)

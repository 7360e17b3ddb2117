"""A command as one process of several: `python -m tests.process main --config=...`, adapted by the environment.

Writes the metrics of every step. HEARTBEAT_TIMEOUT, PHASE_TIMEOUT and SLOW_PHASE_TIMEOUT replace those of the
watchdog.
In process WHO the CALL-th call of METHOD first sends the signal SEND (a number) to the process itself; with 0 it hangs
there, with `error` it raises an error. METHOD is `fetch` of a batch, or `evaluate`.
"""

import itertools
import os
import runpy
import sys
import time

from alexnet_jax import loop, train
from alexnet_jax.runtime import processes, watchdog
from alexnet_jax.workdir import metrics_log, progress

progress.LINE_EVERY = metrics_log.ROW_EVERY = 0.0
processes.FIRST_LINE = float(os.environ.get("FIRST_LINE", 60))  # a busy machine starts processes far apart
watchdog.HEARTBEAT_INTERVAL = 1.0
for name in ("HEARTBEAT_TIMEOUT", "PHASE_TIMEOUT", "SLOW_PHASE_TIMEOUT"):
    setattr(watchdog, name, float(os.environ.get(name, getattr(watchdog, name))))


def arrange(method: str, nth: int) -> None:
    """Makes the `nth` call of the method first do what SEND names."""
    owner, name = {
        "fetch": (train.build, "training_batches"),
        "evaluate": (loop, "evaluate"),
    }[method]
    original, calls = getattr(owner, name), itertools.count(1)

    def act() -> None:
        if next(calls) != nth or processes.index() != int(os.environ["WHO"]):
            return
        if os.environ["SEND"] == "error":
            raise OSError("unreadable")
        if os.environ["SEND"] == "0":
            time.sleep(10_000)
        os.kill(os.getpid(), int(os.environ["SEND"]))

    def call(*arguments, **keywords):
        act()
        return original(*arguments, **keywords)

    def batches(*arguments, **keywords):
        made = original(*arguments, **keywords)
        while True:
            act()
            yield next(made)

    setattr(owner, name, batches if method == "fetch" else call)


if "SEND" in os.environ:
    arrange(os.environ["METHOD"], int(os.environ["CALL"]))
sys.argv = sys.argv[1:]
runpy.run_module(f"alexnet_jax.{sys.argv[0]}", run_name="__main__", alter_sys=True)

"""A door as one process of several: `python -m tests.process main --config=...`, hurried on by the environment.

Writes the metrics of every step, gives a lost process SILENCE seconds instead of 60 and one that hangs STALL; if it is
process WHO, it sends itself the signal SEND (a number) when it fetches the images of update AT; with 0 it hangs there.
"""

import os
import runpy
import signal
import sys
import time

from alexnet_jax import processes, train, watchdog
from alexnet_jax.learning import report

report.LINE_EVERY = report.WRITE_EVERY = 0.0
watchdog.BEAT = 1.0
watchdog.SILENCE = float(os.environ.get("SILENCE", watchdog.SILENCE))
watchdog.STALL = float(os.environ.get("STALL", watchdog.STALL))

fetch, fetched = train.Loop._fetch, 0


def fetch_and_send(loop, batches):
    global fetched
    fetched += 1
    if "SEND" in os.environ and fetched == int(os.environ["AT"]) and processes.index() == int(os.environ["WHO"]):
        if os.environ["SEND"] == "0":
            time.sleep(10_000)
        os.kill(os.getpid(), signal.Signals(int(os.environ["SEND"])))
    return fetch(loop, batches)


train.Loop._fetch = fetch_and_send
sys.argv = sys.argv[1:]
runpy.run_module(f"alexnet_jax.{sys.argv[0]}", run_name="__main__", alter_sys=True)

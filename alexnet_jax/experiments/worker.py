"""A process that makes one run after another: starting it and its devices takes longer than many a run.

It reads runs as lines of JSON, and answers each with its row. What the runs print goes to a file. When the process that
started the worker dies, the run is saved and the worker ends.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

import jax

from alexnet_jax import cli
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.errors import NotFiniteError
from alexnet_jax.experiments.run import Run, perform, row_of

MODULE = "alexnet_jax.experiments.worker"
CPU_DEVICES = 2  # a tower on each, or two parts of a batch; on one core they would take turns
PARENT_CHECK = 1.0  # seconds


def main(parent: str, runs_dir: str, data_dir: str | None = None) -> None:
    """Makes the runs of standard input until it ends.

    Args:
      parent: number of the process that started this one, and may be gone already.
      runs_dir: folder of the workdirs.
      data_dir: of prepared data sets; None: TFDS's own.
    """
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    cli.start(cpu_devices=min(CPU_DEVICES, usable_cores()))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what runs print would mix with the answers
        for line in sys.stdin:
            run = Run(**json.loads(line))
            try:
                row = perform(run, runs_dir=Path(runs_dir), data_dir=data_dir)
            except NotFiniteError as error:
                row = row_of(run, None, seconds=None, error=str(error))
            print(json.dumps(row), file=answers, flush=True)
            jax.clear_caches()  # of the run's programs, which no other run uses


def _end_with(parent: int) -> None:
    """Sends this process SIGTERM once its parent is gone. Training answers with a checkpoint."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os.kill(os.getpid(), signal.SIGTERM)


def command(runs_dir: Path, data_dir: str | None) -> list[str]:
    """The command with which this process starts a worker."""
    return [sys.executable, "-m", MODULE, str(os.getpid()), str(runs_dir), *([data_dir] if data_dir else [])]


def line_of(run: Run) -> str:
    """The line that a worker reads."""
    return json.dumps(dataclasses.asdict(run)) + "\n"


if __name__ == "__main__":
    cli.run(main, words=3)

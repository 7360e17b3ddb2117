"""Writes shards in several processes, which end when the run does, however it ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alexnet_jax.data.preparing import shards
from alexnet_jax.data.preparing.shards import Job
from alexnet_jax.errors import UsageError

Progress = Callable[[int, int], None]  # images done in this run, images to do


def write_missing(jobs: list[Job], processes: int, progress: Progress) -> None:
    """Writes the shards that are not finished. Those in which images were broken are tried again: they may be mended.

    Args:
      jobs: all shards.
      processes: how many work.
      progress: is told how far it is.

    Raises:
      DiskFullError: there is no room.
      UsageError: of a shard, or a worker process died.
    """
    missing = [job for job in jobs if (summary := shards.finished(job)) is None or summary.problems]
    todo = sum(len(job.items) for job in missing)
    done = 0

    def one_more() -> bool:
        nonlocal done
        done += 1
        progress(done, todo)
        return False

    if processes == 1 or len(missing) < 2:
        for job in missing:
            shards.write(job, one_more)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # in the workers, which are one a core already
    context = multiprocessing.get_context("spawn")  # forking a process with threads may lock it up
    counter, stop = context.Value("q", 0), context.Event()
    try:
        with ProcessPoolExecutor(min(processes, len(missing)), context, _start, (counter, stop)) as pool:
            pending = {pool.submit(_work, job) for job in missing}
            try:
                while pending:
                    ended, pending = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
                    progress(counter.value, todo)
                    for future in ended:
                        future.result()
            except BaseException:
                stop.set()
                for future in pending:
                    future.cancel()
                raise
    except BrokenProcessPool as error:
        raise UsageError(
            "a worker process died, killed or out of memory; run the same command to go on,"
            f" with less than --processes={processes} if it was the memory"
        ) from error


_counter: Any = None
_stop: Any = None


def _start(counter: Any, stop: Any) -> None:
    """In a new worker process."""
    global _counter, _stop
    _counter, _stop = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job) -> None:
    def one_more() -> bool:
        with _counter.get_lock():
            _counter.value += 1
        return _stop.is_set()

    shards.write(job, one_more)

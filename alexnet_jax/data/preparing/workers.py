"""Shards are written in several processes, which end when the run ends, also when the run is killed."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alexnet_jax.data.errors import WorkerDiedError
from alexnet_jax.data.preparing import shards
from alexnet_jax.data.preparing.shards import Job

Progress = Callable[[int, int], None]  # images done in this run, images to do


def write_missing(jobs: list[Job], processes: int, progress: Progress) -> None:
    """Writes the shards that are not finished, and again those with broken images: the images may be mended.

    Args:
      jobs: all shards.
      processes: at work.
      progress: called with the images done and to do.

    Raises:
      DiskFullError: the disk has no room.
      SourceError: a label lies outside the classes.
      WorkerDiedError: a process was killed or found no memory.
    """
    missing = [job for job in jobs if (summary := shards.finished(job)) is None or summary.problems]
    todo = sum(len(job.items) for job in missing)
    done = 0

    def one_more() -> bool:
        nonlocal done
        done += 1
        progress(done, todo)
        return False

    try:
        if processes == 1 or len(missing) < 2:
            for job in missing:
                shards.write(job, one_more)
        else:
            _write_in_processes(missing, processes, lambda done: progress(done, todo))
    except (BrokenProcessPool, MemoryError) as error:
        raise WorkerDiedError(processes) from error


def _write_in_processes(jobs: list[Job], processes: int, progress: Callable[[int], None]) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the workers keep all cores busy
    context = multiprocessing.get_context("spawn")  # forking a process with threads may lock it up
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(min(processes, len(jobs)), context, _start, (counter, stop)) as pool:
        # A new process inherits the mask; Ctrl-C would end its imports with a traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with _without_program():
                pending = {pool.submit(_work, job) for job in jobs}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            while pending:
                ended, pending = wait(pending, timeout=0.5, return_when="FIRST_COMPLETED")
                progress(counter.value)
                for future in ended:
                    future.result()
        except BaseException:
            stop.set()
            for future in pending:
                future.cancel()
            raise


@contextlib.contextmanager
def _without_program() -> Iterator[None]:
    """Hides the program from processes that start: they would import it with JAX, which takes most of their memory."""
    program = importlib.import_module("__main__")
    kept = {name: getattr(program, name, None) for name in ("__spec__", "__file__")}
    try:
        for name in kept:
            setattr(program, name, None)
        yield
    finally:
        for name, value in kept.items():
            setattr(program, name, value)


_counter: Any = None
_stop: Any = None


def _start(counter: Any, stop: Any) -> None:
    """Runs first in each worker process."""
    global _counter, _stop
    _counter, _stop = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
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

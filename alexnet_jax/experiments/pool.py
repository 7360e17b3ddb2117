"""Worker processes make runs at the same time. Each worker has its share of the cores, and each run leaves a row."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from alexnet_jax.errors import TEMPORARY, UsageError
from alexnet_jax.experiments import worker
from alexnet_jax.experiments.rows import Row
from alexnet_jax.experiments.run import Run
from alexnet_jax.runtime import output
from alexnet_jax.workdir.atomic import writing


class Pool:
    """Worker processes with a queue of runs.

    Args:
      jobs: runs at a time.
      runs_dir: folder of the workdirs.
      data_dir: of prepared data sets; None: TFDS's own.
      until: time of `time.monotonic` from which on no run is started.
      add: takes each row, in any order, one at a time.
    """

    def __init__(
        self,
        *,
        jobs: int,
        runs_dir: Path,
        data_dir: str | None,
        until: float,
        add: Callable[[Row], None],
    ):
        self._jobs, self._runs_dir, self._data_dir, self._until = jobs, runs_dir, data_dir, until
        self._add = add
        self._lock = threading.Lock()
        self._workers: list[subprocess.Popen[str] | None] = [None] * jobs
        self._stopped: signal.Signals | None = None
        self._errors: list[Exception] = []

    def make(self, runs: Iterable[Run]) -> None:
        """Makes the runs, in order; those that time or a signal leaves over are left.

        Raises:
          UsageError: a run failed by a mistake of the user, its process died, or its row or log cannot be written.
        """
        waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in runs:
            waiting.put(run)
        threads = [threading.Thread(target=self._serve, args=(slot, waiting)) for slot in range(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self._errors[1:]:
            output.warn(f"error: {error}")
        if self._errors:
            raise self._errors[0]

    def stop(self, number: int, _: object = None) -> None:
        """Hands a signal on to the workers, which save their runs and end. A second one ends them at once.

        A terminal that is closed may send SIGHUP twice, which counts once.
        """
        if number == signal.SIGHUP and self._stopped is not None:
            return
        self._stopped = signal.Signals(number)
        for process in filter(None, self._workers):
            process.send_signal(signal.SIGTERM)

    def log(self, slot: int | str) -> Path:
        """The file of what a worker prints; `*` for all. Another command with the same folder has other files."""
        return self._runs_dir / f"worker{slot}-{os.getpid()}.log"

    @property
    def stopped(self) -> signal.Signals | None:
        """The signal that came."""
        return self._stopped

    def close(self) -> None:
        """Ends the workers."""
        for process in filter(None, self._workers):
            assert process.stdin is not None
            process.stdin.close()
            process.wait()

    def _serve(self, slot: int, waiting: "queue.SimpleQueue[Run]") -> None:
        """Gives one worker a run after the other."""
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # cores that were just taken away
                os.sched_setaffinity(0, _cores(slot, self._jobs))  # of this thread, and of processes that it starts
        while self._stopped is None and not self._errors and time.monotonic() < self._until:
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                row = self._ask(slot, run)
                with self._lock:
                    if row is not None:
                        self._add(row)
            except Exception as error:  # `make` raises it, in the main thread
                self._errors.append(error)

    def _ask(self, slot: int, run: Run) -> Row | None:
        """The row of a run; None: it was interrupted.

        Raises:
          UsageError: it failed.
        """
        process = self._workers[slot] or self._start(slot)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(worker.line_of(run))
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):  # a worker may end in the middle of its answer
            return json.loads(line)
        status, self._workers[slot] = process.wait(), None
        if self._stopped is None:
            log = self.log(slot)
            last = "".join(log.read_text(errors="replace").strip().splitlines()[-1:])
            ending = f"the run {run.name!r} with seed {run.seed} ended with status {status}: {last} ({log})"
            if status != TEMPORARY:
                raise UsageError(ending)
            output.warn(ending)
        return None

    def _start(self, slot: int) -> subprocess.Popen[str]:
        with writing(self.log(slot), "name another folder in --runs"):
            self._runs_dir.mkdir(parents=True, exist_ok=True)
            self.log(slot).write_bytes(b"")
        with open(self.log(slot), "a") as log:
            process = subprocess.Popen(
                worker.command(self._runs_dir, self._data_dir),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(self._jobs),
                start_new_session=True,  # Ctrl-C comes to this process alone, which hands it on
            )
        self._workers[slot] = process
        if self._stopped is not None:  # by a signal that came before this process was known
            process.terminate()
        return process


def seconds_left(elapsed: float, *, made: int, left: int, jobs: int) -> float:
    """The time for the runs that are left, when one has just ended; those of the other jobs are half made, on average.

    Args:
      elapsed: seconds since the first runs started.
      made, left: numbers of runs, `made` at least 1.
      jobs: runs at a time.
    """
    half_made = min(jobs - 1, left) / 2
    return elapsed * (left - half_made) / (made + half_made)


def _cores(slot: int, jobs: int) -> set[int]:
    """The cores of one of several processes; all where there are fewer cores than processes.

    Two runs on a core each take less time than two runs one after the other on both cores: 13 % less on ELPV.
    """
    cores = sorted(os.sched_getaffinity(os.getpid()))
    return set(cores[slot::jobs] if jobs <= len(cores) else cores)


def _environment(jobs: int) -> Mapping[str, str]:
    """Environment of one of several processes, each of which would take most of a GPU's memory."""
    if jobs == 1:
        return os.environ
    kept = {name: value for name, value in os.environ.items() if name != "XLA_PYTHON_CLIENT_MEM_FRACTION"}  # older name
    return kept | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_CLIENT_MEM_FRACTION": f"{0.9 / jobs:.3f}"}

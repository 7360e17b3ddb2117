"""The metrics of a run on disk: rows of `metrics.jsonl`, and the same numbers as TensorBoard scalars."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from alexnet_jax import strict_json
from alexnet_jax.paths import is_file
from alexnet_jax.runtime import compat
from alexnet_jax.workdir.atomic import storage_errors, write_atomically
from alexnet_jax.workdir.errors import DamagedFileError, UnreadableFileError, UnwritableWorkdirError

ROWS_FILE = "metrics.jsonl"
DAMAGED_FILE = f"{ROWS_FILE}.damaged"
ROW_EVERY = 10.0  # seconds until a row of training metrics; a third more at most: see `Progress.step`
ROWS = 100  # of training metrics in a run, at least


with compat.without_torch():
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar


def row_due(step: int, num_steps: int) -> bool:
    """Whether update `step` completes a hundredth of the run. It depends on no clock, so all processes agree.

    Args:
      step: updates done.
      num_steps: of the whole run.
    """
    return updates_to_row(step - 1, num_steps) == 1


def updates_to_row(step: int, num_steps: int) -> int:
    """Updates after update `step` that complete a hundredth of the run. Arguments as for `row_due`."""
    return -(-(step * ROWS // num_steps + 1) * num_steps // ROWS) - step


class MetricsLog:
    """Writes rows of `metrics.jsonl` and TensorBoard scalars. Process 0 alone writes.

    A resumed run keeps the rows up to its checkpoint and writes the later ones again. Rows that cannot be written are
    kept in memory until they can.

    Args:
      workdir: of the run.
      steps_per_epoch: updates.
      start_step: updates already done.
      say: prints a line.

    Raises:
      UnwritableWorkdirError: the workdir cannot be read or written.
    """

    def __init__(self, workdir: epath.Path, *, steps_per_epoch: float, start_step: int, say: Callable[[str], None]):
        self._workdir, self._steps_per_epoch, self._say = workdir, steps_per_epoch, say
        self._writes = jax.process_index() == 0
        self._events: Events | None = None
        self._failed = False
        if not self._writes:
            return
        self._file = workdir / ROWS_FILE
        self._appends = "://" not in str(workdir)  # object stores rewrite a whole file
        try:
            with storage_errors(self._file):
                self._rows, unreadable = _rows_up_to(self._file, start_step)
                self._written = len(self._rows)  # characters that are in the file; a row is ASCII
                write_atomically(self._file, self._rows)
                self._events = Events(workdir, purge_step=start_step + 1)
        except OSError as error:
            raise UnwritableWorkdirError(workdir, error) from error
        if unreadable:
            say(
                f"warning: {unreadable} rows of {self._file} cannot be read and are left out;"
                f" {DAMAGED_FILE} keeps the file as it was"
            )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes a row, in which a number that is not finite is null, and a point of each TensorBoard curve.

        Args:
          step: updates done.
          scalars: by name, such as `train/loss`.
        """
        if not self._writes:
            return
        epoch = round(step / self._steps_per_epoch, 4)
        self._rows += strict_json.dumps({"step": step, "epoch": epoch} | dict(scalars)) + "\n"
        try:
            with storage_errors(self._file):
                self._write_rows()
                if self._events is None:
                    self._events = Events(self._workdir, purge_step=step)
                self._events.add(step, scalars)
            self._failed = False
        except OSError as error:
            self.close()
            if not self._failed:  # one warning until a write succeeds; points of TensorBoard curves are lost
                self._say(f"warning: metrics cannot be written: {error}; training goes on")
            self._failed = True

    def close(self) -> None:
        """Closes the TensorBoard file, which the next `write` opens anew."""
        if self._events is not None:
            with contextlib.suppress(OSError), storage_errors(self._file):
                self._events.close()
            self._events = None

    def _write_rows(self) -> None:
        if not self._appends:
            write_atomically(self._file, self._rows)
            return
        if not self._file.exists():  # removed since
            self._file.touch()
            self._written = 0
        with open(self._file, "r+", encoding="ascii") as file:
            file.seek(self._written)
            file.truncate()  # a failed write may have left a part of a row
            file.write(self._rows[self._written :])
        self._written = len(self._rows)


class Events:
    """A TensorBoard file whose points are on disk when `add` returns.

    tensorboardX's writer has a thread that dies of a full disk, and a queue of ten points that then blocks the caller
    for ever.

    Args:
      workdir: gets the file.
      purge_step: TensorBoard ignores the points of earlier files of the workdir from this step on.

    Raises:
      OSError: the file cannot be written. `add` and `close` raise it as well, and the file is then of no use.
    """

    def __init__(self, workdir: epath.Path, *, purge_step: int):
        # The name holds the second. The suffix keeps it unique when a clock is set back.
        self._writer = EventsWriter(str(workdir / "events"), filename_suffix=f".{purge_step}.{os.getpid()}")
        self._writer.write_event(
            Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))
        )
        self._writer.flush()

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes a point of each curve."""
        for name, value in scalars.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        try:
            self._writer.close()
        except Exception:  # also of a storage's package
            compat.close_events_file(self._writer)
            raise


def read_rows(workdir: epath.Path) -> list[dict[str, Any]]:
    """The rows of a run in a workdir, in order, also while the run is at work; empty: there are none.

    A row that cannot be read is left out.

    Raises:
      DamagedFileError: the file is a folder or a device.
      UnreadableFileError: the file may not be read, or its storage fails.
    """
    file = workdir / ROWS_FILE
    if not file.exists():
        return []
    if not is_file(file):
        raise DamagedFileError(file, "it is not a file")
    try:
        with storage_errors(file):
            lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise UnreadableFileError(file, error) from error
    return [row for row in map(_parse, lines) if row]


def _rows_up_to(file: epath.Path, step: int) -> tuple[str, int]:
    """The rows up to a step, as text, and the number of rows that cannot be read.

    The last row does not count: a run that is killed may leave it cut off. Where another row cannot be read, a copy of
    the file is kept beside it.
    """
    if not file.exists():
        return "", 0
    if not is_file(file):
        raise OSError(errno.EINVAL, "is not a file", str(file))
    content = file.read_bytes()
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    rows = [_parse(line) for line in lines if line.strip()]
    unreadable = sum(row is None for row in rows[:-1])
    if unreadable:
        (file.parent / DAMAGED_FILE).write_bytes(content)
    return "".join(strict_json.dumps(row) + "\n" for row in rows if row and row["step"] <= step), unreadable


def _parse(line: bytes) -> dict[str, Any] | None:
    """A row; None: the line is cut off, or not a row of ours."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), (int, float)) else None

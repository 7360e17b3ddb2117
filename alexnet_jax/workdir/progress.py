"""What a run tells of itself: a progress line, `metrics.jsonl` and TensorBoard events. Silent off process 0."""

import contextlib
import dataclasses
import json
import shutil
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping

import jax
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.workdir.atomic import write_whole
from alexnet_jax.workdir.events import Events

FIRST = "first update after "
STEPS_KEPT = 10_000  # last ones, whose time is known
LINE_EVERY = 10.0  # seconds, where the progress line cannot be redrawn
WRITE_EVERY = 10.0  # seconds between two rows of training metrics


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclasses.dataclass(frozen=True)
class Account:
    """Where the time of a run went, in seconds.

    Attributes:
      updates: made after the first one.
      total: since the report began.
      first: until the first update was done: mostly compilation.
      step: median of an update.
      waited: for images, with nothing else to do.
      aside: by name, what stood between updates, such as evaluation.
      reporting: told and written, behind an update that ran.
    """

    updates: int
    total: float
    first: float
    step: float
    waited: float
    aside: dict[str, float]
    reporting: float

    @property
    def rest(self) -> float:
        """What has no name."""
        return self.total - self.first - self.updates * self.step - self.waited - sum(self.aside.values())


class Report:
    """Collects the metrics of steps, and shows and writes them.

    Args:
      workdir: gets `metrics.jsonl` and the events file.
      num_steps, steps_per_epoch: of the whole run.
      start_step: updates already done.

    Raises:
      UsageError: the workdir cannot be written.
    """

    def __init__(self, workdir: epath.Path, *, num_steps: int, steps_per_epoch: float, start_step: int):
        self._num_steps, self._steps_per_epoch = num_steps, steps_per_epoch
        self._speaks = jax.process_index() == 0
        self._redraws = sys.stdout.isatty()
        self._sum, self._waited, self._aside = ZERO, 0.0, 0.0
        self._begun = self._since = self._shown = self._stepped = time.monotonic()
        self._first: float | None = None
        self._updates = 0
        self._steps: deque[float] = deque(maxlen=STEPS_KEPT)
        self._all_waited = self._reporting = 0.0
        self._all_aside: dict[str, float] = defaultdict(float)
        self._line_since_step = start_step
        self._line_length = 0
        if self._speaks:
            self._file = workdir / "metrics.jsonl"
            self._rows = _rows_up_to(self._file, start_step)
            self._written = len(self._rows)  # what is known to be in the file
            self._appends = "://" not in str(workdir)  # object stores rewrite a file whole
            self._workdir, self._failed = workdir, False
            try:
                write_whole(self._file, self._rows)
                self._events: Events | None = Events(workdir, purge_step=start_step + 1)
            except OSError as error:
                message = f"the workdir {workdir} cannot be written: {error}; make room, or name another with --workdir"
                raise UsageError(message) from error

    def step(self, step: int, metrics: Metrics, *, waited: float) -> None:
        """Takes the metrics of the update that made `step`, and the seconds the loop waited for its images."""
        self._sum += metrics
        self._waited += waited
        now = time.monotonic()
        if self._first is None:
            self._first = now - self._begun
            self.say(f"{FIRST}{self._first:.1f} s")
        else:
            self._updates += 1
            self._all_waited += waited
            self._steps.append(now - self._stepped - waited)
        self._stepped = now
        self._tell(step, now)
        self._reporting += time.monotonic() - now

    def _tell(self, step: int, now: float) -> None:
        """The progress line, and at times a row of training metrics."""
        due = now - self._shown >= (0.2 if self._redraws else LINE_EVERY)
        if not (due or step == self._num_steps):
            return
        self._shown = now
        elapsed = max(now - self._since - self._aside, 1e-9)
        per_step = elapsed / (step - self._line_since_step)
        means = self._sum.means()
        self._progress(
            f"step {step:,}/{self._num_steps:,}  epoch {step / self._steps_per_epoch:.1f}"
            f"  loss {means['loss']:.4f}  top-1 error {means['top1']:.1%}"
            f"  {float(self._sum.count) / elapsed:,.0f} images/s"
            f"  input wait {self._waited / elapsed:.1%}  left {duration((self._num_steps - step) * per_step)}",
            last=step == self._num_steps,
        )
        if now - self._since >= WRITE_EVERY or step == self._num_steps:
            row = {f"train/{name}": value for name, value in means.items()}
            row |= {
                "train/images_per_second": float(self._sum.count) / elapsed,
                "train/input_wait": self._waited / elapsed,
            }
            self.write(step, row)
            self._sum, self._waited, self._aside = ZERO, 0.0, 0.0
            self._since, self._line_since_step = now, step

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """While something other than updates goes on: it does not count as the updates' time."""
        begun = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begun
            self._aside += seconds
            self._all_aside[name] += seconds
            self._stepped += seconds

    def account(self) -> Account:
        """Where the time went so far."""
        return Account(
            updates=self._updates,
            total=time.monotonic() - self._begun,
            first=self._first or 0.0,
            step=statistics.median(self._steps) if self._steps else 0.0,
            waited=self._all_waited,
            aside=dict(self._all_aside),
            reporting=self._reporting,
        )

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """A row of `metrics.jsonl` and its scalars for TensorBoard."""
        if not self._speaks:
            return
        epoch = step / self._steps_per_epoch
        self._rows += json.dumps({"step": step, "epoch": round(epoch, 4)} | dict(row)) + "\n"
        try:
            self._write_rows()
            if self._events is None:
                self._events = Events(self._workdir, purge_step=step)
            self._events.add(step, row)
            self._failed = False
        except OSError as error:
            self._close_events()
            if not self._failed:  # once; rows are kept until there is room, but for TensorBoard's
                self.say(f"warning: metrics cannot be written: {error}; training goes on")
            self._failed = True

    def _write_rows(self) -> None:
        if not self._appends:
            self._file.write_text(self._rows)
            return
        with open(self._file, "r+") as file:
            file.seek(self._written)
            file.truncate()  # what a failed write left of a row
            file.write(self._rows[self._written :])
        self._written = len(self._rows)

    def say(self, line: str) -> None:
        """A line of its own, above the progress line."""
        if self._speaks:
            print(" " * self._line_length + "\r" if self._line_length else "", line, sep="", flush=True)
            self._line_length = 0

    def _progress(self, line: str, *, last: bool) -> None:
        if not self._speaks:
            return
        if self._redraws and not last:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be redrawn
            print(line.ljust(self._line_length), end="\r", flush=True)
            self._line_length = len(line)
        else:
            self.say(line)

    def close(self) -> None:
        """Ends the progress line and the events file."""
        if self._speaks:
            self._close_events()
            if self._line_length:
                print(flush=True)

    def _close_events(self) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()
            self._events = None


def _rows_up_to(file: epath.Path, step: int) -> str:
    """The rows a resumed run keeps: what was written after its checkpoint will be written again."""
    if not file.exists():
        return ""
    rows = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                rows.append(line + "\n")
        except (ValueError, KeyError):
            continue  # the row that was being written when the run was cut off
    return "".join(rows)

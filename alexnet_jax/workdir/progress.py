"""The progress of a run: the line on the screen, the rows of training metrics, and where the time goes."""

import contextlib
import dataclasses
import shutil
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
from etils import epath

from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.runtime import output
from alexnet_jax.workdir import metrics_log
from alexnet_jax.workdir.metrics_log import MetricsLog

FIRST = "first update after "
STEPS_KEPT = 10_000  # last updates whose time is known
LINE_EVERY = 10.0  # seconds between two progress lines, where a line cannot be redrawn
REDRAW_EVERY = 0.2  # seconds, on a terminal
AVERAGED = 10.0  # seconds of updates that a progress line averages, at most
SEPARATOR = "  "


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclasses.dataclass(frozen=True)
class TimeBreakdown:
    """Where the time of a run went, in seconds.

    Attributes:
      updates: number of updates after the first.
      total: since the progress began.
      first: until the first update was done, most of it for compilation.
      step: median of an update.
      waited: for images, while the devices were idle.
      paused: between updates, by name, such as evaluation.
      reporting: for printing and writing, while an update ran.
    """

    updates: int
    total: float
    first: float
    step: float
    waited: float
    paused: dict[str, float]
    reporting: float

    @property
    def rest(self) -> float:
        """The time that none of the other fields accounts for."""
        return self.total - self.first - self.updates * self.step - self.waited - sum(self.paused.values())


@dataclasses.dataclass
class _Window:
    """Sums over successive updates. The first update of a run adds no time: most of its time is compilation."""

    metrics: Metrics = ZERO
    updates: int = 0  # whose time is known
    images: float = 0.0  # of these updates
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, metrics: Metrics, *, seconds: float | None, waited: float, updates: int) -> None:
        self.metrics += metrics
        if seconds is not None:
            self.updates += updates
            self.images += float(metrics.count)
            self.seconds += max(seconds, 1e-9)
            self.waited += waited

    def rates(self) -> dict[str, float]:
        if not self.updates:
            return {}
        return {"images_per_second": self.images / self.seconds, "input_wait": self.waited / self.seconds}


class Progress:
    """Collects the metrics of updates, shows them in a line and writes them as rows. Process 0 alone prints.

    Args:
      workdir: gets `metrics.jsonl` and the TensorBoard file.
      num_steps, steps_per_epoch: of the whole run.
      start_step: updates already done.
      stop: called where the reader of standard output has left, such as `head`, for the run to be saved and to end;
        None: that is a `BrokenPipeError`.

    Attributes:
      log: of the metrics on disk.

    Raises:
      UnwritableWorkdirError: the workdir cannot be written.
    """

    def __init__(
        self,
        workdir: epath.Path,
        *,
        num_steps: int,
        steps_per_epoch: float,
        start_step: int,
        stop: Callable[[], None] | None = None,
    ):
        self._num_steps, self._steps_per_epoch = num_steps, steps_per_epoch
        self._prints = jax.process_index() == 0
        self._redraws = sys.stdout is not None and sys.stdout.isatty()  # None: closed at the start
        self._stop = stop
        self._line_length = 0
        self._shown, self._written = _Window(), _Window()  # since the average began, since the last row
        self._scalars: dict[str, float] = {}
        self._begun = self._stepped_at = self._line_at = self._row_at = time.monotonic()
        self._first: float | None = None
        self._steps: deque[float] = deque(maxlen=STEPS_KEPT)
        self._updates, self._waited, self._reporting = 0, 0.0, 0.0
        self._paused: dict[str, float] = defaultdict(float)
        self.log = MetricsLog(workdir, steps_per_epoch=steps_per_epoch, start_step=start_step, say=self.say)

    def step(
        self,
        step: int,
        metrics: Metrics,
        *,
        waited: float,
        updates: int = 1,
        scalars: Mapping[str, float] | None = None,
    ) -> None:
        """Adds an update, or several that were made together.

        A row is written where `row_due` says so. It is also written after `ROW_EVERY` seconds, unless less than a third
        as many updates are left to the next row that is due: a row of few updates is noise.

        Args:
          step: updates done, with this one.
          metrics: of its batch, or the sums over all batches.
          updates: how many.
          waited: seconds for which the devices waited for its images.
          scalars: further numbers by name, such as `train/learning_rate`. The next row holds the latest of each.
        """
        now = time.monotonic()
        seconds = None if self._first is None else now - self._stepped_at
        if seconds is None:
            self._first = now - self._begun
            self._line_at = self._row_at = now  # lines and rows begin with updates whose time is known
            self.say(f"{FIRST}{self._first:.1f} s")
        else:
            self._updates += updates
            waited = min(waited, seconds)  # the wait of the first ones lies before their time
            self._waited += waited
            self._steps.extend([(seconds - waited) / updates] * updates)
        self._stepped_at = now
        for window in (self._shown, self._written):
            window.add(metrics, seconds=seconds, waited=waited, updates=updates)
        self._scalars |= scalars or {}
        self._show(step, now)
        self._write(step, now)
        self._reporting += time.monotonic() - now

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Accounts for the time of the block under the name, not as time of updates."""
        begun = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - begun
            self._paused[name] += seconds
            self._stepped_at += seconds

    def breakdown(self) -> TimeBreakdown:
        """Where the time went until now."""
        return TimeBreakdown(
            updates=self._updates,
            total=time.monotonic() - self._begun,
            first=self._first or 0.0,
            step=statistics.median(self._steps) if self._steps else 0.0,
            waited=self._waited,
            paused=dict(self._paused),
            reporting=self._reporting,
        )

    def say(self, line: str) -> None:
        """Prints a line above the progress line."""
        if self._prints:
            output.write((" " * self._line_length + "\r" if self._line_length else "") + line, stop=self._stop)
            self._line_length = 0

    def close(self) -> None:
        """Ends the progress line, and closes the log."""
        self.log.close()
        if self._line_length:
            output.write("", stop=self._stop)

    def _write(self, step: int, now: float) -> None:
        left = metrics_log.updates_to_row(step, self._num_steps)
        late = now - self._row_at >= metrics_log.ROW_EVERY and self._written.updates <= 3 * left
        if not late and not metrics_log.row_due(step, self._num_steps):
            return
        means = self._written.metrics.means() | self._written.rates()
        self.log.write(step, {f"train/{name}": value for name, value in means.items()} | self._scalars)
        self._written, self._scalars, self._row_at = _Window(), {}, now

    def _show(self, step: int, now: float) -> None:
        last = step == self._num_steps
        if not self._prints or (now - self._line_at < (REDRAW_EVERY if self._redraws else LINE_EVERY) and not last):
            return
        self._line_at = now
        if self._redraws and not last:
            line = _fit(self._fields(step), shutil.get_terminal_size().columns - 1)  # a wrapped line stays on screen
            output.write(line.ljust(self._line_length), end="\r", stop=self._stop)
            self._line_length = len(line)
        else:
            self.say(SEPARATOR.join(self._fields(step)))
        if self._shown.seconds >= AVERAGED:
            self._shown = _Window()

    def _fields(self, step: int) -> list[str]:
        """The parts of the progress line, the most important first. The first five fit 79 columns in long runs, too."""
        means, rates = self._shown.metrics.means(), self._shown.rates()
        fields = [f"step {step:,}/{self._num_steps:,}"]
        if rates:
            seconds = self._shown.seconds / self._shown.updates
            fields.append(f"left {duration((self._num_steps - step) * seconds)}")
        fields += [f"loss {means['loss']:.4f}", f"error {means['top1']:.1%}"]
        if rates:
            fields.append(f"{rates['images_per_second']:,.0f} images/s")
        fields.append(f"epoch {step / self._steps_per_epoch:.1f}")
        if rates:
            fields.append(f"input wait {rates['input_wait']:.1%}")
        return fields


def _fit(fields: Sequence[str], columns: int) -> str:
    """The first fields, as many as fit whole; a first field that does not fit is cut."""
    line = fields[0]
    for field in fields[1:]:
        if len(line) + len(SEPARATOR) + len(field) > columns:
            break
        line += SEPARATOR + field
    return line[:columns]

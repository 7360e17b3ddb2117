import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.workdir.progress import Progress
from tests.comparing import metrics_of


class Clock:
    """`time.monotonic` of a test."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def batch(loss: float = 1.0, count: int = 1) -> Metrics:
    return Metrics(*(np.float64(value * count) for value in (loss, 0.5, 0.25, 1)))


def progress_of(workdir: Path, num_steps: int, start_step: int = 0) -> Progress:
    return Progress(epath.Path(workdir), num_steps=num_steps, steps_per_epoch=3.0, start_step=start_step)


def rows_at(workdir: Path, clock: Clock, num_steps: int, seconds: float) -> list[int]:
    """The updates after which a run writes rows of metrics, if each update takes so many seconds."""
    progress = progress_of(workdir, num_steps)
    for step in range(1, num_steps + 1):
        progress.step(step, batch(), waited=0.0)
        clock.now += seconds
    progress.close()
    return [row["step"] for row in metrics_of(workdir)]


def test_the_breakdown_names_where_the_time_went(tmp_path: Path, clock: Clock):
    progress = progress_of(tmp_path, 9)
    clock.now += 8  # compilation
    progress.step(1, batch(), waited=0.5)
    for step in range(2, 7):
        clock.now += 2
        progress.step(step, batch(), waited=0.0)
    clock.now += 2 + 0.25
    progress.step(7, batch(), waited=0.25)
    with progress.paused("evaluation"):
        clock.now += 5
    for step in (8, 9):
        clock.now += 2 + 0.5  # half a second for which there is no reason
        progress.step(step, batch(), waited=0.0)
    breakdown = progress.breakdown()
    progress.close()
    assert (breakdown.updates, breakdown.total, breakdown.first, breakdown.step) == (8, 30.25, 8, 2)
    assert (breakdown.waited, breakdown.paused, breakdown.rest) == (0.25, {"evaluation": 5}, 1.0)


def test_a_wait_is_never_longer_than_its_update(tmp_path: Path, clock: Clock):
    """The images of the second update are fetched before the first one is reported, where the time begins."""
    progress = progress_of(tmp_path, 2)
    clock.now += 8
    progress.step(1, batch(), waited=0.5)
    clock.now += 0.01
    progress.step(2, batch(), waited=0.09)
    breakdown = progress.breakdown()
    progress.close()
    assert metrics_of(tmp_path)[-1]["train/input_wait"] == 1.0
    assert breakdown.step == 0 and breakdown.waited == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("num_steps", "seconds", "first", "rows"),
    [
        (5, 0.1, [1, 2, 3, 4, 5], 5),
        (250, 0.01, [3, 5, 8, 10, 13, 15], 100),  # 2.5 updates are a hundredth
        (3000, 0.5, [21, 30, 50, 60, 80, 90], 200),  # 30 updates are a hundredth, 20 take ten seconds
    ],
)
def test_a_row_is_due_after_a_hundredth_of_the_run_or_ten_seconds(
    tmp_path: Path, clock: Clock, num_steps: int, seconds: float, first: list[int], rows: int
):
    steps = rows_at(tmp_path, clock, num_steps, seconds)
    assert steps[:6] == first
    assert (len(steps), steps[-1]) == (rows, num_steps)


def test_a_row_holds_means_rates_and_further_scalars_since_the_row_before(tmp_path: Path, clock: Clock):
    progress = progress_of(tmp_path, 200)
    for step, (loss, rate) in enumerate([(1.0, 0.5), (2.0, 0.4), (3.0, 0.3), (5.0, 0.2)], start=1):
        clock.now += 60 if step == 1 else 2
        if step == 4:
            with progress.paused("evaluation"):
                clock.now += 100
        progress.step(step, batch(loss, count=10), waited=0.5, scalars={"train/learning_rate": rate})
    progress.close()
    first, second = metrics_of(tmp_path)
    # The first update, most of which is compilation, is in no rate.
    assert first == {
        "step": 2,
        "epoch": 0.6667,
        "train/loss": 1.5,
        "train/top1": 0.5,
        "train/top5": 0.25,
        "train/images_per_second": 5.0,
        "train/input_wait": 0.25,
        "train/learning_rate": 0.4,
    }
    assert (second["step"], second["train/loss"], second["train/learning_rate"]) == (4, 4.0, 0.2)
    assert second["train/images_per_second"] == 5.0


def test_updates_made_together_count_each(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture):
    progress = progress_of(tmp_path, 101)
    clock.now += 8
    progress.step(1, batch(), waited=0.0)
    clock.now += 25
    progress.step(51, batch(count=50), waited=0.0, updates=50)
    breakdown = progress.breakdown()
    progress.close()
    assert "step 51/101  left 0:25  " in capsys.readouterr().out
    assert (breakdown.updates, breakdown.step) == (50, 0.5)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_on_a_terminal_the_line_has_what_fits_the_most_important_first(
    tmp_path: Path, clock: Clock, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    progress = progress_of(tmp_path, 900_000, start_step=450_000)
    clock.now += 60
    progress.step(450_001, batch(6.9078, 128), waited=0.0)
    clock.now += 0.25
    progress.step(450_002, batch(6.9078, 128), waited=0.0)
    whole = (
        "step 450,002/900,000  left 31:15:00  loss 6.9078  error 50.0%  512 images/s  epoch 150000.7  input wait 0.0%"
    )
    progress.close()
    line = capsys.readouterr().out.split("\r")[-2].splitlines()[-1]
    fields = whole.split("  ")
    assert line == "  ".join(fields[: {40: 2, 80: 5, 120: 7}[columns]])
    assert len(line) < columns


def test_without_a_terminal_lines_come_every_ten_seconds_and_at_the_end(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture
):
    progress = progress_of(tmp_path, 23)
    for step in range(1, 24):
        clock.now += 1
        progress.step(step, batch(step), waited=0.0)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "first update after 1.0 s"
    assert [line.split()[1] for line in lines[1:]] == ["11/23", "21/23", "23/23"]
    assert lines[-1] == "step 23/23  left 0:00  loss 22.5000  error 50.0%  1 images/s  epoch 7.7  input wait 0.0%"


@pytest.mark.parametrize("seconds", [0.1389, 0.16, 0.25])
def test_no_row_has_few_updates(tmp_path: Path, clock: Clock, seconds: float):
    """Hundredths of the run took 10.3 s, and one update was left after a row of 72 in ten seconds."""
    assert min(np.diff(rows_at(tmp_path, clock, 7_388, seconds))) >= 18

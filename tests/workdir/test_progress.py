import gc
import json
import resource
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.workdir.progress import Report


@pytest.fixture
def room():
    """Sets how many bytes a file may hold; None: as many as before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


def test_rows_that_find_no_room_are_told_once_and_written_later(tmp_path: Path, room, capsys: pytest.CaptureFixture):
    report = Report(epath.Path(tmp_path), num_steps=9, steps_per_epoch=3.0, start_step=0)
    report.write(1, {"train/loss": 1.0})
    room((tmp_path / "metrics.jsonl").stat().st_size + 5)
    report.write(2, {"train/loss": 2.0})
    report.write(3, {"train/loss": 3.0})
    room(None)
    told = capsys.readouterr().out
    assert told.startswith("warning: metrics cannot be written: ") and told.count("\n") == 1
    report.write(4, {"train/loss": 4.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["train/loss"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert len(list(tmp_path.glob("events*"))) == 2  # a file that could not be written is given up
    report.close()


def test_curves_that_find_no_room_leave_the_rows_alone(tmp_path: Path, room, capsys: pytest.CaptureFixture):
    report = Report(epath.Path(tmp_path), num_steps=9, steps_per_epoch=3.0, start_step=0)
    row = {f"train/{letter}": 5.0 for letter in "abcdefghij"}
    for step in range(5):
        report.write(step, row)
    (events,) = tmp_path.glob("events*")
    assert events.stat().st_size > (tmp_path / "metrics.jsonl").stat().st_size + 500
    room(events.stat().st_size + 10)
    report.write(5, row)
    room(None)
    told = capsys.readouterr().out
    assert told.startswith("warning: metrics cannot be written: ") and told.count("\n") == 1
    report.write(6, row)
    report.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 7
    gc.collect()  # a file that is left open says so on the screen

import gc
import math
import resource
import struct
from pathlib import Path

import pytest
from etils import epath
from tensorboardX.proto.event_pb2 import Event

from alexnet_jax.errors import UsageError
from alexnet_jax.workdir.errors import DamagedFileError
from alexnet_jax.workdir.metrics_log import MetricsLog, read_rows
from tests.comparing import metrics_of


@pytest.fixture
def room():
    """Sets how many bytes a file may hold; None: as many as before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


def log_of(workdir: Path, start_step: int = 0) -> MetricsLog:
    return MetricsLog(epath.Path(workdir), steps_per_epoch=3.0, start_step=start_step, say=print)


def test_rows_that_find_no_room_are_one_warning_and_written_later(tmp_path: Path, room, capsys: pytest.CaptureFixture):
    log = log_of(tmp_path)
    log.write(1, {"train/loss": 1.0})
    room((tmp_path / "metrics.jsonl").stat().st_size + 5)
    log.write(2, {"train/loss": 2.0})
    log.write(3, {"train/loss": 3.0})
    room(None)
    out = capsys.readouterr().out
    assert out.startswith("warning: metrics cannot be written: ") and out.count("\n") == 1
    log.write(4, {"train/loss": 4.0})
    assert [(row["step"], row["train/loss"]) for row in metrics_of(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
    ]
    assert len(list(tmp_path.glob("events*"))) == 2  # a file that could not be written is given up
    log.close()


def events_of(workdir: Path) -> list[list[tuple]]:
    """`(step, name, value)` of each point, and `(step, "purge", None)` of each start, file by file."""
    files = []
    for file in sorted(workdir.glob("events*"), key=lambda file: file.stat().st_mtime_ns):
        data, events = file.read_bytes(), []
        while data:
            [size] = struct.unpack_from("<Q", data)  # then 4 bytes of checksum, the event, and 4 bytes of checksum
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            if event.HasField("session_log"):
                events.append((event.step, "purge", None))
            events += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        files.append(events)
    return files


def test_tensorboard_has_each_number_at_its_update_and_keeps_those_before_a_resumption(tmp_path: Path):
    log = log_of(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"train/loss": step + 0.5, "eval/top1": 0.25 * step})
    log.close()
    log = log_of(tmp_path, start_step=2)
    log.write(3, {"train/loss": 9.0})
    log.close()
    points = [
        point for step in (1, 2, 3) for point in ((step, "train/loss", step + 0.5), (step, "eval/top1", 0.25 * step))
    ]
    assert events_of(tmp_path) == [[(1, "purge", None), *points], [(3, "purge", None), (3, "train/loss", 9.0)]]


def test_rows_that_a_user_removes_are_written_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    log = log_of(tmp_path)
    log.write(1, {"train/loss": 1.0})
    (tmp_path / "metrics.jsonl").unlink()
    log.write(2, {"train/loss": 2.0})
    assert [row["step"] for row in metrics_of(tmp_path)] == [1, 2] and capsys.readouterr().out == ""
    log.close()


def test_curves_that_find_no_room_leave_the_rows_alone(tmp_path: Path, room, capsys: pytest.CaptureFixture):
    log = log_of(tmp_path)
    row = {f"train/{letter}": 5.0 for letter in "abcdefghij"}
    for step in range(5):
        log.write(step, row)
    (events,) = tmp_path.glob("events*")
    assert events.stat().st_size > (tmp_path / "metrics.jsonl").stat().st_size + 500
    room(events.stat().st_size + 10)
    log.write(5, row)
    room(None)
    out = capsys.readouterr().out
    assert out.startswith("warning: metrics cannot be written: ") and out.count("\n") == 1
    log.write(6, row)
    log.close()
    assert len(metrics_of(tmp_path)) == 7
    gc.collect()  # a file that is left open is a warning


def test_a_number_that_is_not_finite_is_null_and_keeps_its_key(tmp_path: Path):
    log = log_of(tmp_path)
    log.write(1, {"eval/loss": math.nan, "eval/top1": 1.0, "train/norm": math.inf})
    log.close()
    assert metrics_of(tmp_path) == [
        {"step": 1, "epoch": 0.3333, "eval/loss": None, "eval/top1": 1.0, "train/norm": None}
    ]


def test_a_resumed_run_keeps_the_rows_up_to_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture):
    log = log_of(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"train/loss": step / 3})
    log.close()
    before = metrics_of(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')  # a kill cut it off
    log = log_of(tmp_path, start_step=2)
    log.write(3, {"train/loss": 9.0})
    log.close()
    assert metrics_of(tmp_path) == [*before[:2], {"step": 3, "epoch": 1.0, "train/loss": 9.0}]
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"metrics", "events"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "kept", "unreadable"),
    [
        (b"", [], 0),
        (b"\0" * 100, [], 0),  # as a power cut leaves the end of a file
        (b'{"step": 1, "train/loss": NaN}\n', [{"step": 1, "train/loss": None}], 0),  # of an earlier version
        (b'\xef\xbb\xbf{"step": 1}\r\n\r\n{"step": 2}\r\n', [{"step": 1}, {"step": 2}], 0),  # of an editor
        (b'{"step": 1}\n[1]\n3\nnull\n{"loss": 1}\n{"step": "2"}\n\xff\n{"step": 2}\n', [{"step": 1}, {"step": 2}], 6),
        ('{"step": 1}\n{"step": 2}\n'.encode("utf-16"), [], 2),
    ],
)
def test_rows_that_cannot_be_read_are_left_out_and_none_is_lost(
    tmp_path: Path, content: bytes, kept: list, unreadable: int, capsys: pytest.CaptureFixture
):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(content)
    log = log_of(tmp_path, start_step=5)
    log.write(6, {})
    log.close()
    assert metrics_of(tmp_path) == [*kept, {"step": 6, "epoch": 2.0}]
    out = capsys.readouterr().out
    copy = tmp_path / "metrics.jsonl.damaged"
    if unreadable:
        assert out.startswith(f"warning: {unreadable} rows of {file} cannot be read") and out.count("\n") == 1
        assert copy.read_bytes() == content
    else:
        assert out == "" and not copy.exists()


def test_a_workdir_that_cannot_be_written_is_one_error(tmp_path: Path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=f"the workdir {tmp_path} cannot be written: "):
        log_of(tmp_path)


def test_rows_are_read_as_far_as_they_can_be(tmp_path):
    folder = epath.Path(tmp_path)
    assert read_rows(folder) == []
    (tmp_path / "metrics.jsonl").write_bytes(
        b'\xef\xbb\xbf{"step": 1}\nnot a row\n[2]\n{"step": 3, "a": null}\n{"step": 4'
    )
    assert read_rows(folder) == [{"step": 1}, {"step": 3, "a": None}]
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DamagedFileError, match="not a file"):
        read_rows(folder)

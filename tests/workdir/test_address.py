"""Workdirs at an address such as gs://bucket/run, with the storage in memory."""

from pathlib import Path

import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import init_from
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.workdir import manifest, metrics_log, record
from alexnet_jax.workdir.atomic import open_atomically
from alexnet_jax.workdir.errors import UnreadableFileError, UnwritableWorkdirError


class BusyError(Exception):
    """As of a storage's package: no OSError."""


class Bucket(MemoryFileSystem):
    """Files in memory, whose paths lose their `gs://`, as those of gcsfs do."""

    fails = False

    @classmethod
    def _strip_protocol(cls, path):
        return f"/{str(path).partition('://')[2] or str(path)}".rstrip("/").replace("//", "/")

    def open(self, path, mode="rb", **options):
        if self.fails:
            raise BusyError("503, Service\nUnavailable")
        return super().open(path, mode, **options)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    storage = Bucket(skip_instance_cache=True)
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda self, name: storage)
    return storage


FOLDER = epath.Path("gs://bucket/run")


def test_the_manifest_of_a_checkpoint_names_its_files_below_the_folder(bucket: Bucket):
    (FOLDER / "1/metrics").mkdir(parents=True)
    (FOLDER / "1/metrics/metrics").write_text("{}")
    (FOLDER / "1/data").write_text("1234")
    manifest.extend(FOLDER / "1")
    assert manifest._names(FOLDER / "1") == ["data", "metrics/metrics"]
    assert manifest.damage(FOLDER / "1") is None
    (FOLDER / "1/data").write_text("1235")
    assert manifest.damage(FOLDER / "1") == "data has changed since it was written"
    (FOLDER / "1/data").unlink()
    assert manifest.damage(FOLDER / "1") == "data is missing"


def test_metrics_outlive_a_failure_of_the_storage(bucket: Bucket, monkeypatch, capsys: pytest.CaptureFixture):
    written: list[int] = []

    class Events:
        def __init__(self, workdir, *, purge_step):
            pass

        def add(self, step, scalars):
            written.append(step)

        def close(self):
            raise BusyError("503")

    monkeypatch.setattr(metrics_log, "Events", Events)
    log = metrics_log.MetricsLog(FOLDER, steps_per_epoch=1.0, start_step=0, say=print)
    log.write(1, {"train/loss": 1.0})
    bucket.fails = True
    log.write(2, {"train/loss": 2.0})
    log.write(3, {"train/loss": 3.0})
    bucket.fails = False
    expected = "warning: metrics cannot be written: 503, Service Unavailable; training goes on\n"
    assert capsys.readouterr().out == expected
    log.write(4, {"train/loss": 4.0})
    assert [row["step"] for row in metrics_log.read_rows(FOLDER)] == [1, 2, 3, 4] and written == [1, 4]
    log.close()


def test_a_failure_of_the_storage_is_one_line(bucket: Bucket):
    record.write_json(FOLDER, "result.json", {"step": 1})
    assert record.read_json(FOLDER / "result.json") == {"step": 1}
    bucket.fails = True
    with pytest.raises(UnwritableWorkdirError, match="503, Service Unavailable"):
        record.write_json(FOLDER, "result.json", {"step": 2})
    with pytest.raises(UnreadableFileError, match="503, Service Unavailable"):
        record.read_json(FOLDER / "result.json")
    with pytest.raises(UnwritableWorkdirError, match="503, Service Unavailable"):
        metrics_log.MetricsLog(FOLDER, steps_per_epoch=1.0, start_step=0, say=print)
    bucket.fails = False
    assert record.read_json(FOLDER / "result.json") == {"step": 1}


def test_an_error_of_the_writer_stays_what_it_is(bucket: Bucket):
    (FOLDER / "a").write_text("before")

    def write():
        with open_atomically(FOLDER / "a") as opened:
            opened.write(b"part")
            raise UsageError("a worker is dead")

    with pytest.raises(UsageError, match="a worker is dead"):
        write()
    assert [path.name for path in FOLDER.iterdir()] == ["a"] and (FOLDER / "a").read_text() == "before"


def test_a_run_starts_from_one_at_an_address(bucket: Bucket, tiny_config, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []

    class OpenedError(Exception):
        pass

    def checkpoints(folder, *, read_only):
        opened.append(str(folder))
        raise OpenedError

    (FOLDER / "checkpoints/1").mkdir(parents=True)
    (FOLDER / "checkpoints/1/data").write_text("1")
    monkeypatch.setattr(init_from, "Checkpoints", checkpoints)
    settings = read_settings(tiny_config(init_from=str(FOLDER)))
    with pytest.raises(OpenedError), init_from._open(settings, ["conv1"]):
        pass
    assert opened == ["gs://bucket/run/checkpoints"]
    monkeypatch.chdir(Path("/"))
    local = read_settings(tiny_config(init_from="tmp"))
    monkeypatch.setattr(init_from, "is_missing", lambda folder: False)
    with pytest.raises(OpenedError), init_from._open(local, ["conv1"]):
        pass
    assert opened[1:] == ["/tmp/checkpoints"]

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError
from alexnet_jax.workdir import record
from alexnet_jax.workdir.errors import DamagedFileError, LockedWorkdirError, NoRunError, OtherConfigError

CONFIG: dict[str, Any] = {"momentum": 0.9, "rates": {"all": ((0, 0.01), (1.0, 0.001))}, "mesh": {"data": None}}
RESULT = {
    "step": 12,
    "count": 50,
    "loss_1_views": 0.5,
    "top1_1_views": 0.25,
    "loss_10_views": 0.4,
    "top1_10_views": 0.2,
}
DAMAGED = [b"", b"\0" * 64, b'{"config": {"mom', b"[]", b"3", b"null", b"\xff\xfe{\x00", b"[" * 100_000]


@pytest.fixture
def workdir(tmp_path: Path) -> epath.Path:
    return epath.Path(tmp_path)


def changed(**fields: object) -> dict[str, Any]:
    config = ConfigDict(CONFIG)
    config.update_from_flattened_dict(fields)
    return config.to_dict()


def add_checkpoint(workdir: epath.Path) -> None:
    (workdir / "checkpoints" / "7").mkdir(parents=True)


def test_a_config_is_recorded_with_versions_and_command_and_read_again(workdir: epath.Path):
    record.record(workdir, CONFIG)
    content = json.loads((workdir / "config.json").read_text())
    assert content["versions"].keys() >= {"python", "jax", "orbax-checkpoint"}
    assert content["command"]
    assert record.read_config(workdir) == {
        "momentum": 0.9,
        "rates": {"all": [[0, 0.01], [1.0, 0.001]]},
        "mesh": {"data": None},
    }
    before = (workdir / "config.json").stat()
    record.record(workdir, CONFIG)
    assert (workdir / "config.json").stat() == before


def test_another_config_is_refused_with_its_changes_once_there_are_checkpoints(workdir: epath.Path):
    other = changed(**{"momentum": 0.8, "mesh.data": 2})
    record.record(workdir, CONFIG)
    record.check(workdir, other)
    add_checkpoint(workdir)
    record.check(workdir, CONFIG)
    with pytest.raises(OtherConfigError, match=r"another config: mesh.data \(None there, 2 here\), momentum \(0.9 th"):
        record.check(workdir, other)
    with pytest.raises(OtherConfigError) as caught:
        record.check(workdir, other, may_change=["mesh.data"])
    assert caught.value.changes == {"momentum": (0.9, 0.8)}
    record.check(workdir, changed(**{"mesh.data": 2}), may_change=["mesh.data"])


def test_a_field_that_an_earlier_version_did_not_have_has_the_value_of_its_runs(workdir: epath.Path):
    record.record(workdir, CONFIG)
    add_checkpoint(workdir)
    before = (workdir / "config.json").read_bytes()
    record.check(workdir, changed(flips=2), complete={"flips": 2}.__or__)
    record.record(workdir, changed(flips=2), complete={"flips": 2}.__or__)
    assert (workdir / "config.json").read_bytes() == before  # with the versions and the command of the first start
    with pytest.raises(OtherConfigError, match=r"flips \(2 there, 8 here\)"):
        record.check(workdir, changed(flips=8), complete={"flips": 2}.__or__)


@pytest.mark.parametrize("content", [*DAMAGED, b"{}", b'{"config": 3}'])
def test_a_damaged_config_is_one_error_or_written_anew_where_there_are_no_checkpoints(
    workdir: epath.Path, content: bytes, capsys: pytest.CaptureFixture
):
    file = workdir / "config.json"
    file.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        record.read_config(workdir)
    assert str(caught.value).startswith(f"{file} is damaged (") and "\n" not in str(caught.value)
    record.check(workdir, CONFIG)
    record.record(workdir, CONFIG)
    out = capsys.readouterr().out
    assert out.startswith(f"warning: {file} is damaged (") and out.endswith("; it is written anew\n")
    assert record.read_config(workdir)["momentum"] == 0.9
    file.write_bytes(content)
    add_checkpoint(workdir)
    with pytest.raises(DamagedFileError):
        record.check(workdir, CONFIG)
    assert file.read_bytes() == content


def test_a_folder_without_a_config_holds_no_run(workdir: epath.Path):
    with pytest.raises(NoRunError, match=f"^{workdir} holds no run: config.json is missing$"):
        record.read_config(workdir)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lr[0.01]", r"has \[0\.01\] in its path, below which orbax reads nothing; name another"),
        ("a\\b/run", r"has \\ in its path, below which orbax"),
        ("b\udcff", r"has a name that is no UTF-8, and orbax knows no other; name another"),
    ],
)
def test_a_name_below_which_no_checkpoint_can_be_read_is_refused(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        record.make(epath.Path(tmp_path) / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "config.json").write_text('{"config": {}}')
    with pytest.raises(UsageError, match=message.replace("name another", "rename it")):
        record.read_config(epath.Path(tmp_path) / name)
    record.make(epath.Path(tmp_path) / "a]b*c")


def test_a_file_is_no_workdir(tmp_path):
    file = epath.Path(tmp_path / "net.safetensors")
    file.write_bytes(b"parameters")
    with pytest.raises(NoRunError, match=f"^{file} holds no run: it is a file$"):
        record.read_config(file)


def test_a_result_is_read_as_written(workdir: epath.Path):
    assert record.read_result(workdir) is None
    record.write_json(workdir, record.RESULT_FILE, RESULT | {"top5_1_views": 0.1})
    assert record.read_result(workdir) == RESULT | {"top5_1_views": 0.1}
    text = (workdir / "result.json").read_text()
    (workdir / "result.json").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())  # by an editor
    assert record.read_result(workdir) == RESULT | {"top5_1_views": 0.1}


@pytest.mark.parametrize(
    "content",
    [
        *DAMAGED,
        b"{}",
        json.dumps(RESULT | {"loss_10_views": math.nan}).encode(),  # of an earlier version
        json.dumps(RESULT | {"top1_1_views": None}).encode(),
        json.dumps(RESULT | {"count": "50"}).encode(),
    ],
)
def test_a_damaged_result_is_one_line_and_none(workdir: epath.Path, content: bytes, capsys: pytest.CaptureFixture):
    file = workdir / "result.json"
    file.write_bytes(content)
    assert record.read_result(workdir) is None
    out = capsys.readouterr().out
    assert out.startswith(f"warning: {file} is damaged (") and out.count("\n") == 1
    assert out.endswith("; the run counts as not finished\n")


def test_no_number_of_a_result_leaves_json(workdir: epath.Path):
    record.write_json(workdir, record.RESULT_FILE, RESULT | {"loss_1_views": math.inf})
    assert json.loads((workdir / "result.json").read_text(), parse_constant=pytest.fail)["loss_1_views"] is None


def test_a_lock_is_held_once_and_names_its_holder(workdir: epath.Path):
    with (
        record.lock(workdir),
        pytest.raises(LockedWorkdirError, match=r"at work in .* \(process \d+ on "),
        record.lock(workdir),
    ):
        pass
    with record.lock(workdir):
        (workdir / "lock").write_bytes(b"\xff\xfe")
        with pytest.raises(LockedWorkdirError), record.lock(workdir):
            pass


def test_a_file_system_without_locks_is_a_warning(
    workdir: epath.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(record.fcntl, "flock", refuse)
    with record.lock(workdir):
        pass
    warning = f"warning: the file system of {workdir} has no locks; let no other run use this workdir\n"
    assert capsys.readouterr().err == warning

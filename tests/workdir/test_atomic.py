import errno
import os
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.workdir.atomic import write_atomically


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a power cut may leave it empty."""
    file, events = epath.Path(tmp_path / "result.json"), []
    replace, fsync = os.replace, os.fsync

    def replacing(source, target, **options):
        events.append(("renamed", Path(source).read_bytes()))
        replace(source, target, **options)

    def flushing(descriptor):
        fsync(descriptor)
        events.append(("flushed", os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "fsync", flushing)
    write_atomically(file, "größer\n")
    assert file.read_bytes() == "größer\n".encode()
    assert events == [("flushed", 9), ("renamed", "größer\n".encode())]


@pytest.mark.parametrize(("number", "written"), [(errno.ENOSPC, False), (errno.EIO, False), (errno.EINVAL, True)])
def test_a_failed_flush_leaves_the_file_from_before(
    tmp_path: Path, number: int, written: bool, monkeypatch: pytest.MonkeyPatch
):
    """EINVAL: the file system has no flush."""
    file = epath.Path(tmp_path / "result.json")
    write_atomically(file, "before")

    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    if written:
        write_atomically(file, "after")
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_atomically(file, "after")
    assert file.read_text() == ("after" if written else "before")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]

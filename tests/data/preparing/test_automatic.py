"""Data sets that need no files from the user: prepared once, and opened as any other version left them."""

import json
import shutil
from pathlib import Path

import pytest

from alexnet_jax.data.dataset import RECORD_FILE, open_dataset
from alexnet_jax.data.errors import DatasetError, UnwritableFolderError
from alexnet_jax.data.preparing import automatic


def test_nothing_happens_where_the_data_set_is_there_or_is_another(data_dir: str, tmp_path: Path):
    automatic.ensure("elpv/64", data_dir, say=pytest.fail)
    for name in ("imagenet2012/256", "elpv", "elpv/064", "elpv/64_png"):
        automatic.ensure(name, str(tmp_path), say=pytest.fail)
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_the_version_before_opens_unchanged(data_dir: str, tmp_path: Path):
    """TFDS wrote that data set: its metadata name another module, and there is no record."""
    folder = tmp_path / "elpv/64/1.0.0"
    shutil.copytree(Path(data_dir, "elpv/64/1.0.0"), folder)
    (folder / RECORD_FILE).unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    info["moduleName"] = "alexnet_jax.data.preparing.sources.elpv"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    automatic.ensure("elpv/64", str(tmp_path), say=pytest.fail)
    assert open_dataset("elpv/64", str(tmp_path)).facts() == open_dataset("elpv/64", data_dir).facts()


def test_what_cannot_be_prepared(tmp_path: Path):
    with pytest.raises(DatasetError, match="ELPV have 300x300 pixels; ask for a size from 8 to 300"):
        automatic.ensure("elpv/301", str(tmp_path), say=pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFolderError, match=r"file.* cannot be written"):
        automatic.ensure("elpv/64", str(tmp_path / "file"), say=print)

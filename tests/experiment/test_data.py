"""The data set of an experiment: prepared where it is missing, and errors with the flags and fields that help."""

import json
import shutil
from pathlib import Path

import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.data import open_data


def test_advice_on_a_data_set_that_is_missing_or_cannot_be_written(data_dir: str, tmp_path: Path):
    advice = (
        r"no data set 'elvp/64' in .*; there are elpv; config.dataset.name names the data set and --data_dir the"
        r" folder; elpv/SIZE \(such as elpv/160\) is made when first used, and `python -m alexnet_jax.prepare`"
        " makes others"
    )
    with pytest.raises(UsageError, match=advice):
        open_data("elvp/64", data_dir, say=pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written: Not a directory; name another folder with --data_dir"):
        open_data("elpv/64", str(tmp_path / "file"), say=print)


def test_advice_on_a_copy_that_tfds_prepared(data_dir: str, tmp_path: Path):
    folder = tmp_path / "flowers/3.0.1"
    folder.mkdir(parents=True)
    for file in ("dataset_info.json", "features.json"):
        shutil.copy(Path(data_dir, "elpv/64/1.0.0", file), folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"moduleName": "tensorflow_datasets.flowers"}))
    advice = f"prepare tfds flowers --source_dir={tmp_path}` prepares the data set from that copy"
    with pytest.raises(UsageError, match=advice) as refused:
        open_data("flowers", str(tmp_path), say=pytest.fail)
    assert "remove" not in str(refused.value)


def test_a_data_set_that_is_there_is_opened(data_dir: str):
    assert open_data("elpv/64", data_dir, say=pytest.fail).image_size == 64

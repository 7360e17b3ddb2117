import shutil
from collections import Counter
from pathlib import Path

import pytest

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.pipeline import decode
from alexnet_jax.data.preparing.sources import elpv
from alexnet_jax.errors import UsageError


def test_the_split_is_a_quarter_of_every_group():
    rows = elpv.read_labels()
    held_out = elpv.hold_out(rows)
    assert len(rows) == 2624
    groups = Counter((probability, kind) for _, probability, kind in rows)
    assert len(groups) == 8
    tested = Counter((probability, kind) for name, probability, kind in rows if name in held_out)
    assert all(abs(tested[group] - count / 4) <= 0.5 for group, count in groups.items())
    assert elpv.hold_out(rows[::-1]) == held_out


def names(source) -> set[str]:
    return {example["name"].decode() for example in source}


def test_the_prepared_set_is_complete_and_opens_anywhere(data_dir: str, tmp_path: Path):
    data = open_dataset("elpv/64", data_dir, say=pytest.fail)
    train, test = data.split("train"), data.split("test")
    rows = elpv.read_labels()
    held_out = elpv.hold_out(rows)
    assert names(test) == held_out
    assert names(train) == {name for name, _, _ in rows} - held_out
    assert data.class_names == ["functional", "defective"]
    defective = {name for name, probability, _ in rows if probability >= 0.5}
    assert all((example["label"] == 1) == (example["name"].decode() in defective) for example in test)
    assert decode(test[0]["image"]).shape == (64, 64, 3)
    assert 100 < data.statistics.channel_means[0] < 200

    shutil.copytree(data_dir, tmp_path / "moved")
    moved = open_dataset("elpv/64", str(tmp_path / "moved"), say=pytest.fail)
    assert len(moved.split("train[:10%]")) == 197


def test_mistakes_are_named(data_dir: str, tmp_path: Path):
    data = open_dataset("elpv/64", data_dir, say=pytest.fail)
    with pytest.raises(UsageError, match=r"no split 'validation'; it has test, train|train, test"):
        data.split("validation")
    with pytest.raises(UsageError, match="holds no example"):
        data.split("train[:0]")
    with pytest.raises(UsageError, match="no part of a split; write for example"):
        data.split("train[a]")
    with pytest.raises(UsageError, match=r"no data set 'elvp/64' in .*elpv/64, .* are made when first used"):
        open_dataset("elvp/64", data_dir, say=print)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written.*--data_dir"):
        open_dataset("elpv/64", str(tmp_path / "file"), say=print)


@pytest.mark.parametrize("missing", ["dataset_info.json", "statistics.npz", "features.json"])
def test_a_half_prepared_folder_is_named(data_dir: str, tmp_path: Path, missing: str):
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    (copy / "elpv/64/1.0.0" / missing).unlink()
    with pytest.raises(UsageError, match=f"half prepared: .*{missing}.*remove the folder and run again"):
        open_dataset("elpv/64", str(copy), say=print)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_shards_are_named(data_dir: str, tmp_path: Path, damage: str):
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    (shard,) = (copy / "elpv/64/1.0.0").glob("*train*array_record*")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UsageError, match="half prepared: split 'train' cannot be read"):
        open_dataset("elpv/64", str(copy), say=print).split("train")

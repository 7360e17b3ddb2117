"""The identity of a run's data."""

import json
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.workdir import data_identity, record
from alexnet_jax.workdir.errors import DamagedFileError, OtherDataError

IDENTITY = {
    "name": "pets/64/1.0.0",
    "image_size": 64,
    "classes": ["cat", "dog"],
    "examples": {"train": 7, "validation": 1},
    "statistics": "0123",
}


def workdir(folder: Path) -> epath.Path:
    (folder / "checkpoints/1").mkdir(parents=True)
    return epath.Path(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dog", "cat"]}, "class 0 is 'cat' there and 'dog' here"),
        ({"classes": ["cat", "dog", "emu"]}, "2 classes there, 3 here"),
        ({"examples": {"train": 6, "validation": 1}}, "split 'train' has 7 images there and 6 images here"),
        ({"examples": {"train": 7}}, "split 'validation' has 1 image there and no image here"),
        ({"statistics": "4567"}, "training images differ .digest of their statistics 0123 there, 4567 here"),
        ({"image_size": 32}, "the data set's image_size is 64 there and 32 here"),
        ({"classes": ["a", "b"], "statistics": "4567"}, "class 0 is"),
    ],
)
def test_other_data_are_refused_by_their_first_difference(tmp_path: Path, change: dict, message: str):
    folder = workdir(tmp_path)
    record.write_json(folder, data_identity.DATA_FILE, IDENTITY)
    data_identity.check(folder, IDENTITY)
    with pytest.raises(OtherDataError, match=message):
        data_identity.check(folder, IDENTITY | change)


def test_a_run_without_an_identity_or_a_checkpoint_goes_on(tmp_path: Path):
    data_identity.check(workdir(tmp_path / "before"), IDENTITY)
    (tmp_path / "new").mkdir()
    record.write_json(epath.Path(tmp_path / "new"), data_identity.DATA_FILE, IDENTITY)
    data_identity.check(epath.Path(tmp_path / "new"), IDENTITY | {"classes": ["a"]})
    assert data_identity.form_of(epath.Path(tmp_path / "new"), "pets") == "pets"


def test_a_run_goes_on_with_the_form_of_its_data_set(tmp_path: Path):
    folder = workdir(tmp_path)
    record.write_json(folder, data_identity.DATA_FILE, IDENTITY)
    assert [data_identity.form_of(folder, name) for name in ("pets", "pet", "pets/64")] == ["pets/64", "pet", "pets/64"]


def test_an_identity_that_cannot_be_read_is_one_line(tmp_path: Path):
    folder = workdir(tmp_path)
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"data\.json is damaged"):
        data_identity.check(folder, IDENTITY)
    (tmp_path / "data.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    data_identity.check(folder, IDENTITY)  # of a version that recorded less


@pytest.mark.parametrize("value", [None, True, -1, 1e300, "x", [], ["x"], {"train": "x"}, {"train": None}, {"": []}])
def test_an_identity_of_other_values_is_one_line(tmp_path: Path, value: object):
    """As an editor or another program may leave them."""
    folder = workdir(tmp_path)
    for key in IDENTITY:
        (tmp_path / "data.json").write_text(json.dumps(IDENTITY | {key: value}))
        with pytest.raises(OtherDataError) as raised:
            data_identity.check(folder, IDENTITY)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 600
        assert isinstance(data_identity.form_of(folder, "pets"), str)

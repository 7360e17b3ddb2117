"""Prepared data sets, opened: raw pixels read in place, and the errors for parts that are missing."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data import dataset as datasets
from alexnet_jax.data.dataset import count_examples, data_folder, open_dataset
from alexnet_jax.data.errors import DatasetError, ForeignDatasetError, IncompleteDatasetError, UnknownDatasetError
from alexnet_jax.data.records import Example, RawPixels
from tests.conftest import ROOT

SHAPE = 9, 16, 3  # 432 bytes: lengths of two bytes before them


def example(names: tuple[str, ...], pixels: bytes, label: int, name: bytes) -> tf_example_pb2.Example:
    made = tf_example_pb2.Example()
    for feature in names:
        if feature == "image":
            made.features.feature[feature].bytes_list.value.append(pixels)
        elif feature == "label":
            made.features.feature[feature].int64_list.value.append(label)
        else:
            made.features.feature[feature].bytes_list.value.append(name)
    return made


@settings(deadline=None)
@given(
    names=st.sampled_from(list(itertools.permutations(("image", "label", "name")))),
    deterministic=st.booleans(),
    pixels=st.binary(min_size=432, max_size=432),
    label=st.integers(-(2**63), 2**63 - 1),
    name=st.binary(max_size=300),
)
def test_raw_pixels_are_what_protocol_buffers_read(names, deterministic, pixels, label, name):
    record = example(names, pixels, label, name).SerializeToString(deterministic=deterministic)
    others, found = RawPixels(SHAPE).split(record)
    expected = Example.FromString(record).features.feature
    np.testing.assert_array_equal(found, np.frombuffer(expected["image"].bytes_list.value[0], np.uint8).reshape(SHAPE))
    assert dict(others) == {feature: expected[feature] for feature in ("label", "name")}


@settings(deadline=None)
@given(
    names=st.sets(st.sampled_from(("image", "label", "name"))),
    image=st.binary(max_size=300),
    label=st.integers(-(2**63), 2**63 - 1),
    name=st.binary(max_size=300),
)
def test_examples_are_what_tfds_reads(names, image, label, name):
    record = example(tuple(names), image, label, name)
    record.features.feature["other"].float_list.value.append(1.5)
    found, expected = Example.FromString(record.SerializeToString()).features.feature, record.features.feature
    assert set(found) == set(expected)
    for feature in names:
        for kind in ("bytes_list", "int64_list"):
            assert getattr(found[feature], kind).value == getattr(expected[feature], kind).value


def test_pixels_of_another_shape_or_cut_short_are_refused():
    record = example(("image", "label"), bytes(432), 1, b"").SerializeToString()
    with pytest.raises(ValueError, match=r"no image of \(9, 17, 3\)"):
        RawPixels((9, 17, 3)).split(record)
    alone = example(("image",), bytes(432), 1, b"").SerializeToString()
    with pytest.raises(ValueError, match="buffer"):
        RawPixels(SHAPE).split(alone[:-1])


def test_a_data_set_opens_anywhere(data_dir: str, tmp_path: Path):
    shutil.copytree(data_dir, tmp_path / "moved")
    moved = open_dataset("elpv/64", str(tmp_path / "moved"))
    assert len(moved.split("train[:10%]")) == 197
    assert moved.facts() == open_dataset("elpv/64", data_dir).facts()


@pytest.mark.parametrize("part", ["train[:0%]", "train[5:3]", "train[-3:-5]", "train[90%:80%]", "train[5:3]+train[:9]"])
def test_a_part_without_an_example_is_no_damage_of_the_data_set(data_dir: str, part: str):
    with pytest.raises(DatasetError, match="holds no example; ask for a larger part") as error:
        open_dataset("elpv/64", data_dir).split(part)
    assert "remove" not in str(error.value)


@pytest.mark.parametrize(
    ("split", "first"),
    [
        ("test[:5]+test[:5]", "0 of 'test'"),
        ("train[:50%]+test+train[25%:75%]", "492 of 'train'"),
        ("train[-5:]+train[1960:1966]", "1,965 of 'train'"),
    ],
)
def test_a_split_that_holds_an_example_twice_is_refused(data_dir: str, split: str, first: str):
    data = open_dataset("elpv/64", data_dir)
    with pytest.raises(DatasetError, match=f"holds example {first} twice; name each example once"):
        data.split(split)
    with pytest.raises(DatasetError, match=f"holds example {first} twice; name each example once"):
        count_examples(split, data.examples)


@pytest.mark.parametrize("split", ["test[5:10]+test[:5]", "train[5:5]+train[:10]", "train[:4]+test[:6]"])
def test_parts_beside_each_other_are_joined(data_dir: str, split: str):
    data = open_dataset("elpv/64", data_dir)
    assert len(data.split(split)) == count_examples(split, data.examples) == 10


def test_mistakes_are_named(data_dir: str):
    data = open_dataset("elpv/64", data_dir)
    with pytest.raises(DatasetError, match=r"no split 'validation'; it has (?:test, train|train, test)"):
        data.split("validation")
    with pytest.raises(DatasetError, match="holds no example"):
        data.split("train[:0]")
    with pytest.raises(DatasetError, match="no part of a split; write for example"):
        data.split("train[a]")
    with pytest.raises(UnknownDatasetError, match=r"no data set 'elvp/64' in .*; there are elpv"):
        open_dataset("elvp/64", data_dir)


@pytest.mark.parametrize("name", ["{folder}", "../data/elpv/64", "./elpv/64"])
def test_a_path_is_no_name(data_dir: str, name: str):
    with pytest.raises(UnknownDatasetError, match=r"no data set '.*/elpv/64' in .*; there are elpv"):
        open_dataset(name.format(folder=Path(data_dir, "elpv/64")), data_dir)


@pytest.mark.parametrize("missing", ["dataset_info.json", "statistics.npz", "features.json", "label.labels.txt"])
def test_a_missing_file_is_named(data_dir: str, tmp_path: Path, missing: str):
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data/elpv/64/1.0.0" / missing).unlink()
    advice = "remove the folder, and prepare the data set or copy it again"
    with pytest.raises(IncompleteDatasetError, match=f"incomplete or damaged: .*{missing}.*{advice}"):
        open_dataset("elpv/64", str(tmp_path / "data"))


@pytest.mark.parametrize("text", ["functional\n", "", "functional\ndefective\nodd\n"])
def test_names_of_other_classes_are_named(data_dir: str, tmp_path: Path, text: str):
    """TFDS takes the names without an error, as after a copy that was cut off."""
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data/elpv/64/1.0.0/label.labels.txt").write_text(text)
    count = len(text.split())
    with pytest.raises(IncompleteDatasetError, match=f"label.labels.txt has {count} names, and there are 2 classes"):
        open_dataset("elpv/64", str(tmp_path / "data"))


@pytest.mark.parametrize(
    "arrays",
    [
        {"mean_image": np.full((64, 64, 3), np.nan)},
        {"mean_image": np.zeros((32, 32, 3))},
        {"mean_image": np.zeros((64, 64, 3), int)},
        {"mean_image": np.array("x")},
        {"mean_image": np.full((64, 64, 3), 1e30)},
        {"mean_image": np.full((64, 64, 3), -1.0)},
        {"covariance": np.full((3, 3), np.inf)},
        {"covariance": np.eye(3) * 1e30},
        {"covariance": -np.eye(3)},
        {"covariance": np.zeros((2, 2))},
        {"covariance": np.zeros((3, 3), complex)},
        None,
    ],
)
def test_statistics_that_make_no_sense_are_named(data_dir: str, tmp_path: Path, arrays: dict | None):
    shutil.copytree(data_dir, tmp_path / "data")
    file = tmp_path / "data/elpv/64/1.0.0/statistics.npz"
    if arrays is None:
        file.write_bytes(b"damaged")
    else:
        np.savez(file, **dict(np.load(file)) | arrays)
    with pytest.raises(IncompleteDatasetError, match=r"statistics\.npz cannot be read; remove the folder"):
        open_dataset("elpv/64", str(tmp_path / "data"))


def test_no_advice_to_remove_what_another_program_prepared(data_dir: str, tmp_path: Path):
    folder = tmp_path / "elpv/64/1.0.0"
    shutil.copytree(Path(data_dir, "elpv/64/1.0.0"), folder)
    for file in (datasets.RECORD_FILE, "statistics.npz"):
        (folder / file).unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"moduleName": "tensorflow_datasets.elpv"}))
    with pytest.raises(
        ForeignDatasetError, match=r"was not prepared for training: statistics\.npz is missing$"
    ) as refused:
        open_dataset("elpv/64", str(tmp_path))
    assert (refused.value.name, refused.value.data_dir) == ("elpv/64", str(tmp_path))


def test_the_origin_of_the_images_is_that_of_tfds_metadata(data_dir: str, tmp_path: Path):
    folder = tmp_path / "elpv/64/1.0.0"
    shutil.copytree(Path(data_dir, "elpv/64/1.0.0"), folder)
    origin = open_dataset("elpv/64", str(tmp_path)).provenance
    assert origin.description.startswith("Solar cells photographed by electroluminescence")
    assert origin[1:] == ("https://github.com/zae-bayern/elpv-dataset", "CC BY-NC-SA 4.0")
    info = json.loads((folder / "dataset_info.json").read_text())
    for key in ("description", "location", "redistributionInfo"):
        del info[key]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert open_dataset("elpv/64", str(tmp_path)).provenance == ("", "", "")
    info |= {"description": " Cells.\n", "location": {"urls": []}, "redistributionInfo": {"license": "\tMIT "}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert open_dataset("elpv/64", str(tmp_path)).provenance == ("Cells.", "", "MIT")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_shards_are_named(data_dir: str, tmp_path: Path, damage: str):
    shutil.copytree(data_dir, tmp_path / "data")
    shard = min((tmp_path / "data/elpv/64/1.0.0").glob("*train*array_record*"))
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(IncompleteDatasetError, match="incomplete or damaged: split 'train' cannot be read"):
        open_dataset("elpv/64", str(tmp_path / "data")).split("train")


def test_the_home_folder_of_a_user(data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(data_dir, tmp_path / "sets")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("elpv/64", "~/sets").image_size == 64
    monkeypatch.setattr(datasets.tfds.core.constants, "DATA_DIR", "~/sets")  # TFDS reads TFDS_DATA_DIR on import
    assert str(data_folder(None)) == f"{tmp_path}/sets"
    assert str(data_folder("gs://bucket/sets")) == "gs://bucket/sets"


@pytest.mark.parametrize("hard", [512, 48])
def test_more_files_than_a_process_may_open(tmp_path: Path, hard: int):
    """As of ImageNet's 1,300 shards, with a limit that can be raised and with one that cannot."""
    program = """
        import resource, sys
        from array_record.python import array_record_module
        from alexnet_jax.data.records import Records

        folder, hard = sys.argv[1], int(sys.argv[2])
        parts = []
        for number in range(100):
            parts.append((f"{folder}/{number}", 0, 1))
            writer = array_record_module.ArrayRecordWriter(parts[-1][0], "group_size:1")
            writer.write(b"%d" % number)
            writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
        records = Records(parts)
        for number in [*range(100), 0, 99, 50]:
            assert records[number] == b"%d" % number
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), str(hard)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_copies_of_a_data_set_differ_in_the_fact_in_which_they_differ(data_dir: str, tmp_path: Path):
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data/elpv/64/1.0.0/label.labels.txt").write_text("defective\nfunctional\n")
    ours, theirs = (open_dataset("elpv/64", str(folder)).facts() for folder in (data_dir, tmp_path / "data"))
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"the data set's classes"}
    assert "train 1970" in ours["the data set's examples"] and "test 654" in ours["the data set's examples"]

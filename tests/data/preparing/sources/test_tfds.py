"""Data sets that TFDS prepared, in each of its formats."""

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.images import BrokenImageError
from alexnet_jax.data.preparing.sources import tfds as source
from alexnet_jax.data.preparing.sources.tfds import tfds_dataset


def jpeg(color=(10, 20, 30), size=(12, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "JPEG")
    return file.getvalue()


def color_of(label: int) -> tuple[int, int, int]:
    return label % 250, label // 4, 128


KINDS = tfds.features.FeaturesDict(
    {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["x", "y"]), "id": tfds.features.Text()}
)


ABOUT = {"homepage": "https://toys.example", "license": "CC BY 4.0"}


def write_tfds(path, file_format, features=KINDS, *, unlabelled=(), damaged=False):
    """A data set of three images in TFDS's layout, and as many in each split of `unlabelled`, or broken ones."""
    from array_record.python import array_record_module

    data = path / "toy" / "1.0.0"
    data.mkdir(parents=True)
    names = sorted({"train", *unlabelled})
    for name in names:
        file = data / f"toy-{name}.{file_format}-00000-of-00001"
        labels = [-1 if name in unlabelled else n % 2 for n in range(3)]
        records = [
            features.serialize_example(
                features.encode_example({"image": jpeg(color_of(n)), "label": label, "id": str(n)})
            )
            for n, label in enumerate(labels)
        ]
        records = [b"\xff" * 40] * 3 if damaged else records
        if file_format == "tfrecord":
            framed = [struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records]
            file.write_bytes(b"".join(framed))
        else:
            writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
            for record in records:
                writer.write(record)
            writer.close()
    identity = tfds.core.dataset_info.DatasetIdentity("toy", tfds.core.Version("1.0.0"), str(data), "elsewhere")
    info = tfds.core.DatasetInfo(builder=identity, description="toys", features=features, **ABOUT)
    info.set_file_format(file_format)
    splits = []
    for name in names:
        template = tfds.core.ShardedFileTemplate(
            data_dir=data, dataset_name="toy", split=name, filetype_suffix=file_format
        )
        splits.append(tfds.core.SplitInfo(name=name, shard_lengths=[3], num_bytes=1, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(data)
    return file


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_tfds(tmp_path, file_format):
    write_tfds(tmp_path, file_format)
    listing = tfds_dataset("toy", str(tmp_path))
    assert listing.class_names == ["x", "y"] and listing.name == "toy"
    assert (listing.homepage, listing.license) == (ABOUT["homepage"], ABOUT["license"])
    read = [listing.read(item) for item in listing.splits["train"]]
    assert read == [(jpeg(color_of(n)), n % 2) for n in range(3)]


def test_tfds_prepared_beside_its_source(tmp_path):
    """In one data folder TFDS's copy and ours have one name; ours is meant."""
    write_tfds(tmp_path, "tfrecord")
    listing = tfds_dataset("toy", str(tmp_path))
    preparation.prepare(
        listing, preparation.Options(size=8), str(tmp_path), record={}, progress=lambda done, todo: None
    )
    data = open_dataset("toy", str(tmp_path))
    assert data.image_size == 8 and sorted(example["label"] for example in data.split("train")) == [0, 0, 1]


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_splits_without_labels_are_left_out(tmp_path, file_format):
    lines = []
    write_tfds(tmp_path, file_format, unlabelled=("more",))
    assert list(tfds_dataset("toy", str(tmp_path), say=lines.append).splits) == ["train"]
    assert lines == ["split 'more' of toy is left out: its 3 images have no labels"]


def test_tfds_without_any_label(tmp_path):
    write_tfds(tmp_path, "array_record", unlabelled=("train",))
    with pytest.raises(DatasetError, match="no split of toy has labels"):
        tfds_dataset("toy", str(tmp_path))


def test_tfds_cut_off(tmp_path):
    file = write_tfds(tmp_path, "tfrecord")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="cut off or no TFRecord"):
        tfds_dataset("toy", str(tmp_path))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_damaged_record_is_a_broken_image(tmp_path, file_format):
    """A record in each format that is no example: the file is whole, and the first record is read at the start."""
    write_tfds(tmp_path, file_format, damaged=True)
    listing = tfds_dataset("toy", str(tmp_path))
    reasons = []
    for item in listing.splits["train"]:
        with pytest.raises(BrokenImageError, match="its record cannot be read: ") as error:
            listing.read(item)
        reasons.append(str(error.value))
    assert len(reasons) == 3


def test_tfds_unknown(tmp_path):
    with pytest.raises(DatasetError, match="TFDS cannot open 'no_such_thing'"):
        tfds_dataset("no_such_thing", str(tmp_path))


def test_tfds_without_labels(tmp_path):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.int64), "id": tfds.features.Text()}
    )
    write_tfds(tmp_path, "array_record", features)
    with pytest.raises(DatasetError, match=r"has the images \['image'\] and the labels \[\]"):
        tfds_dataset("toy", str(tmp_path))


def test_the_label_that_the_data_set_names_is_taken():
    kinds = {name: tfds.features.ClassLabel(names=["x", "y"]) for name in ("coarse_label", "label")}
    info = SimpleNamespace(features={"image": tfds.features.Image(), **kinds}, supervised_keys=("image", "label"))
    assert source._keys("cifar100", info) == ("image", "label")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_shard_with_too_few_records_is_named(tmp_path, file_format):
    shard = SimpleNamespace(filepaths=[write_tfds(tmp_path, file_format)], shard_lengths=[4])
    with pytest.raises(DatasetError, match="holds 3 records and the metadata say 4"):
        list(source._records(shard))

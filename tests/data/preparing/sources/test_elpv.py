"""ELPV: the splits, and the order of the images, on which all results depend."""

import hashlib
import io
from collections import Counter

import numpy as np
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.decoders import decode
from alexnet_jax.data.preparing.sources import elpv
from tests.data.made import statistics_of

# SHA-256 of 'NAME LABEL\n' of each image in order, as TFDS 4.9.10 wrote the first data sets.
ORDERS = {
    "train": "7fbb7e8d145ced2a6c5b011feb41f0ca8142d3d4eaebd45f55ee0e8fff31bf15",
    "test": "7b3afe4fed7bf7993bc044f4893c3ce0ec62e9f46e156bee532d369bc91137e2",
}


def test_the_split_is_a_quarter_of_every_group():
    rows = elpv.read_labels()
    held_out = elpv.hold_out(rows)
    assert len(rows) == 2624
    groups = Counter((probability, kind) for _, probability, kind in rows)
    assert len(groups) == 8
    tested = Counter((probability, kind) for name, probability, kind in rows if name in held_out)
    assert all(abs(tested[group] - count / 4) <= 0.5 for group, count in groups.items())
    assert elpv.hold_out(rows[::-1]) == held_out


def test_the_prepared_images_have_the_order_labels_and_pixels_of_the_first_version(data_dir: str):
    data = open_dataset("elpv/64", data_dir)
    assert data.class_names == ["functional", "defective"]
    for split, order in ORDERS.items():
        lines, listed = "", elpv.elpv().splits[split]
        source = data.split(split)
        for example, item in zip(source, listed, strict=True):
            lines += f"{example['name'].decode()} {example['label']}\n"
            assert item.name == example["name"].decode()
        assert hashlib.sha256(lines.encode()).hexdigest() == order
        for index in range(0, len(listed), 100):  # the documented encoder, applied afresh
            file = io.BytesIO()
            with Image.open(listed[index].file) as photograph:
                small = photograph.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
            small.info = {}  # some photographs name the program that wrote them
            small.save(file, "JPEG", quality=95)
            assert source[index]["image"] == file.getvalue()


def test_the_statistics_are_those_of_the_decoded_training_images(data_dir: str):
    data = open_dataset("elpv/64", data_dir)
    expected = statistics_of(decode(example["image"]) for example in data.split("train"))
    np.testing.assert_array_equal(data.statistics.mean_image, expected.mean_image)
    np.testing.assert_array_equal(data.statistics.covariance, expected.covariance)
    assert 100 < data.statistics.channel_means[0] < 200

"""ImageNet's readable class names."""

from pathlib import Path

import tensorflow_datasets as tfds

from alexnet_jax.data import imagenet_names
from alexnet_jax.data.imagenet_names import readable


def test_the_ids_have_the_order_of_the_labels():
    labels = Path(tfds.__file__).parent / "datasets/imagenet2012/labels.txt"
    assert imagenet_names.class_ids() == tuple(labels.read_text().split())


def test_known_classes_have_their_names():
    assert [readable(name) for name in ("n01440764", "n02123045", "n15075141")] == [
        "tench (n01440764)",
        "tabby (n02123045)",
        "toilet tissue (n15075141)",
    ]
    assert imagenet_names.names()["n02123045"] == "tabby, tabby cat"
    assert len({readable(name) for name in imagenet_names.class_ids()}) == 1000


def test_other_names_stay():
    assert [readable(name) for name in ("cat", "n00000000", "", "n02123045 ")] == ["cat", "n00000000", "", "n02123045 "]


def test_the_notice_of_wordnet_is_beside_the_names():
    text = imagenet_names.FILE.read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert "Permission to use, copy, modify and distribute" in text

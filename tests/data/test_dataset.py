import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data.dataset import RawPixels

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
    expected = tf_example_pb2.Example.FromString(record).features.feature
    np.testing.assert_array_equal(found, np.frombuffer(expected["image"].bytes_list.value[0], np.uint8).reshape(SHAPE))
    assert dict(others) == {feature: expected[feature] for feature in ("label", "name")}


def test_pixels_of_another_shape_or_cut_short_are_refused():
    record = example(("image", "label"), bytes(432), 1, b"").SerializeToString()
    with pytest.raises(ValueError, match=r"no image of \(9, 17, 3\)"):
        RawPixels((9, 17, 3)).split(record)
    alone = example(("image",), bytes(432), 1, b"").SerializeToString()
    with pytest.raises(ValueError, match="buffer"):
        RawPixels(SHAPE).split(alone[:-1])

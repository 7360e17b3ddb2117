import gzip
import inspect
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.preparing.sources import idx


def write(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for begin, count in (("train", 30), ("t10k", 10)):
        write(tmp_path / f"{begin}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write(tmp_path / f"{begin}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    idx.read_idx.cache_clear()
    return tmp_path


def test_every_image_is_found_with_its_label(source: Path):
    listing = idx.fashion_mnist(str(source))
    assert {split: len(items) for split, items in listing.splits.items()} == {"train": 30, "test": 10}
    pixels = idx.read_idx(str(source / "train-images-idx3-ubyte.gz"), axes=3)
    encoded, label = listing.read(listing.splits["train"][13])
    assert label == 3
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels[13])


def test_wrong_files_are_named(source: Path):
    images = source / "t10k-images-idx3-ubyte.gz"
    write(source / "t10k-labels-idx1-ubyte.gz", np.zeros(9, np.uint8))
    with pytest.raises(DatasetError, match=r"holds 10 images and .* 9 labels; download both again"):
        idx.fashion_mnist(str(source))
    idx.read_idx.cache_clear()
    write(source / "t10k-labels-idx1-ubyte.gz", np.full(10, 10, np.uint8))
    with pytest.raises(DatasetError, match="has the label 10, and there are 10 classes"):
        idx.fashion_mnist(str(source))
    idx.read_idx.cache_clear()
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(DatasetError, match="is no whole IDX file"):
        idx.fashion_mnist(str(source))
    images.unlink()
    with pytest.raises(DatasetError, match="is missing; Fashion-MNIST has four files"):
        idx.fashion_mnist(str(source))


def test_the_classes_have_tfdss_order():
    from tensorflow_datasets.image_classification.mnist import FashionMNIST

    text = inspect.getsource(FashionMNIST._info)
    places = [text.index(f'"{name}"') for name in idx.CLASSES]
    assert len(places) == 10 and places == sorted(places)

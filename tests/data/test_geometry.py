import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import geometry


def numbered(height: int, width: int) -> np.ndarray:
    """Pixels that tell where they are: row, column, 7."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def test_offsets_reach_both_ends_and_are_uniform():
    image, rng = numbered(11, 11), np.random.default_rng(0)
    offsets = [tuple(geometry.random_crop(image, 8, rng)[0, 0, :2]) for _ in range(8000)]
    counts = {offset: offsets.count(offset) for offset in set(offsets)}
    assert sorted(counts) == [(y, x) for y in range(4) for x in range(4)]
    assert all(400 < count < 600 for count in counts.values())


def test_flips_mirror_half_of_the_images():
    image, rng = numbered(4, 5), np.random.default_rng(0)
    flipped = [bool(geometry.random_flip(image, rng)[0, 0, 1]) for _ in range(2000)]
    assert 900 < sum(flipped) < 1100
    np.testing.assert_array_equal(geometry.random_flip(image[:, :1], rng), image[:, :1])


def test_ten_views_are_corners_centre_and_mirrors():
    views = geometry.views_of(numbered(256, 256), 224, 10)
    assert views.shape == (10, 224, 224, 3)
    # A/convdata_jpeg.py:225-233
    assert [tuple(view[0, 0, :2]) for view in views[:5]] == [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])
    np.testing.assert_array_equal(geometry.views_of(numbered(256, 256), 224, 1), views[4:5])
    with pytest.raises(ValueError, match="1 or 10, not 3"):
        geometry.views_of(numbered(8, 8), 4, 3)


@pytest.mark.parametrize("shape", [(300, 300), (100, 333), (500, 256), (7, 1), (256, 256)])
def test_shorter_side_then_central_square(shape: tuple[int, int]):
    image = Image.fromarray(np.zeros((*shape, 3), np.uint8))
    assert geometry.resize_and_crop(image, 256).size == (256, 256)


def test_the_centre_is_what_remains():
    image = Image.fromarray(numbered(64, 128))
    np.testing.assert_array_equal(np.asarray(geometry.resize_and_crop(image, 64)), numbered(64, 128)[:, 32:96])

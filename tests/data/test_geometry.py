from collections import Counter

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import geometry


def numbered(height: int, width: int) -> np.ndarray:
    """Pixels with row, column and 7 as the three colours."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def draw(rng: np.random.Generator) -> np.ndarray:
    return rng.random(geometry.DRAWS)


def test_offsets_reach_both_ends_and_are_uniform():
    rng = np.random.default_rng(0)
    crops = [geometry.random_crop(11, 8, draw(rng)) for _ in range(8000)]
    counts = Counter((crop.top, crop.left) for crop in crops)
    assert sorted(counts) == [(y, x) for y in range(4) for x in range(4)]
    assert all(400 < count < 600 for count in counts.values())
    assert 3800 < sum(crop.flip for crop in crops) < 4200
    assert {(crop.angle, crop.factor) for crop in crops} == {(0.0, 1.0)}


@pytest.mark.parametrize("flip", [False, True])
def test_a_cut_is_the_square_or_its_mirror(flip: bool):
    out = np.empty((3, 3, 3), np.uint8)
    geometry.cut(numbered(6, 7), geometry.Crop(2, 1, flip), out)
    expected = numbered(6, 7)[2:5, 1:4]
    np.testing.assert_array_equal(out, expected[:, ::-1] if flip else expected)


def test_ten_views_are_corners_centre_and_mirrors():
    views = geometry.views_of(numbered(256, 256), 224, 10)
    assert views.shape == (10, 224, 224, 3)
    # A/convdata_jpeg.py:225-233
    assert [tuple(view[0, 0, :2]) for view in views[:5]] == [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])
    np.testing.assert_array_equal(geometry.views_of(numbered(256, 256), 224, 1), views[4:5])
    with pytest.raises(ValueError, match="1, 9 or 10, not 3"):
        geometry.views_of(numbered(8, 8), 4, 3)


def test_nine_views_are_three_rows_of_three():
    views = geometry.views_of(numbered(32, 32), 24, 9)
    assert views.shape == (9, 24, 24, 3)
    # A/convdata_cifar.py:83-88
    places = [(0, 0), (0, 4), (0, 8), (4, 0), (4, 4), (4, 8), (8, 0), (8, 4), (8, 8)]
    for view, (top, left) in zip(views, places, strict=True):
        np.testing.assert_array_equal(view, numbered(32, 32)[top : top + 24, left : left + 24])


@pytest.mark.parametrize("shape", [(300, 300), (100, 333), (500, 256), (7, 1), (256, 256)])
def test_shorter_side_then_central_square(shape: tuple[int, int]):
    image = Image.fromarray(np.zeros((*shape, 3), np.uint8))
    assert geometry.resize_and_crop(image, 256).size == (256, 256)


@pytest.mark.parametrize(("shape", "rows", "columns"), [((128, 64), (32, 96), (0, 64)), ((64, 128), (0, 64), (32, 96))])
def test_the_square_lies_in_the_middle_of_the_longer_side(shape, rows, columns):
    """Rows and columns of the square, in pixels of the image, which is twice as long as wide or as high."""
    image = Image.fromarray(numbered(*shape).repeat(2, axis=0).repeat(2, axis=1))
    square = np.asarray(geometry.resize_and_crop(image, 64)).astype(float)
    for axis, (first, end) in enumerate((rows, columns)):
        np.testing.assert_allclose(square[..., axis].mean(axis=1 - axis), np.arange(first, end), atol=1)


def test_the_centre_is_what_remains():
    image = Image.fromarray(numbered(64, 128))
    np.testing.assert_array_equal(np.asarray(geometry.resize_and_crop(image, 64)), numbered(64, 128)[:, 32:96])


def test_each_draw_has_its_part_of_a_crop():
    crop = geometry.random_crop(256, 224, np.array([0.5, 0.25, 0.75, 0.875, 0.125]), rotation=8.0, scale=0.44)
    assert (crop.top, crop.left, bool(crop.flip)) == (16, 8, False)  # of 33 places each
    np.testing.assert_allclose(np.rad2deg(crop.angle), 6)  # 8 (2 x 0.875 - 1)
    np.testing.assert_allclose(crop.factor, 1.2**-1.5)  # 1.44 ^ (2 x 0.125 - 1)

import numpy as np
from PIL import Image

from alexnet_jax.data import geometry

SMALL = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
IMAGE = np.asarray(Image.fromarray(SMALL).resize((128, 128), Image.Resampling.BICUBIC))


def cut(**fields) -> np.ndarray:
    """The centre of 112 pixels, with other values for a `Crop`'s fields."""
    out = np.empty((112, 112, 3), np.uint8)
    geometry.cut(IMAGE, geometry.Crop(**{"top": 8, "left": 8, "flip": False} | fields), out)
    return out.astype(int)


def test_a_little_jitter_changes_little():
    assert np.abs(cut() - cut(angle=1e-4, factor=1.0001)).max() <= 2


def test_a_quarter_turn_is_a_rotation():
    assert np.abs(cut(angle=np.pi / 2) - np.rot90(cut(), -1)).max() <= 1


def test_a_flip_comes_after_the_turn():
    np.testing.assert_array_equal(cut(angle=0.1, flip=True), cut(angle=0.1)[:, ::-1])


def test_enlarging_shows_the_middle_and_reducing_mirrors_the_border():
    middle = Image.fromarray(IMAGE[36:92, 36:92]).resize((112, 112), Image.Resampling.BILINEAR)
    assert np.abs(cut(factor=2.0)[4:-4, 4:-4] - np.asarray(middle)[4:-4, 4:-4]).max() <= 3
    reduced = cut(factor=0.5)
    assert (reduced == 0).all(-1).mean() < 0.01
    # Half of 128 pixels show in the middle of 112; beyond them, from pixel 24 outwards, their mirror image.
    assert np.abs(reduced[:, 25:31] - reduced[:, 22:16:-1]).mean() < 12


def test_draws_become_angles_and_factors_within_their_bounds():
    rng = np.random.default_rng(0)
    crops = [geometry.random_crop(128, 112, rng.random(geometry.DRAWS), rotation=5.0, scale=0.25) for _ in range(4000)]
    angles, factors = np.rad2deg([crop.angle for crop in crops]), np.array([crop.factor for crop in crops])
    assert -5 <= angles.min() < -4.9 < 4.9 < angles.max() <= 5
    assert 0.8 <= factors.min() < 0.805 < 1.24 < factors.max() <= 1.25
    assert abs(np.log(factors).mean()) < 0.01
    assert abs(np.corrcoef(angles, factors)[0, 1]) < 0.05


def test_symmetries_are_those_of_the_square_and_equally_likely():
    draws = (np.arange(800) + 0.5) / 800
    for count in (1, 2, 4, 8):
        kinds = np.stack(geometry.symmetry(draws, count))
        found = {}
        for flip, upside_down, transposed in kinds.T:
            image = cut(flip=bool(flip), upside_down=bool(upside_down), transposed=bool(transposed))
            found[image.tobytes()] = found.get(image.tobytes(), 0) + 1
        assert sorted(found.values()) == [800 // count] * count
    np.testing.assert_array_equal(cut(transposed=True, flip=True), np.rot90(cut(), -1))
    np.testing.assert_array_equal(cut(upside_down=True), cut()[::-1])


def test_two_symmetries_are_the_flips_of_2012():
    draws = np.random.default_rng(0).random((100, geometry.DRAWS))
    crops = [geometry.random_crop(128, 112, row) for row in draws]
    assert [crop.flip for crop in crops] == [bool(row[2] < 0.5) for row in draws]
    assert not any(crop.upside_down or crop.transposed for crop in crops)

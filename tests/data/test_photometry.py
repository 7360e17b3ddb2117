import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from alexnet_jax.data.photometry import photometry
from alexnet_jax.data.preprocessing import Preprocessing, load, standardized, to_bytes
from alexnet_jax.learning.optimizer import piecewise

DIRECTIONS = np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0], [30.0, 20.0, 40.0]], np.float32)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (400, 2, 2, 3), np.uint8))
MEAN = np.full((4, 4, 3), 100, np.float32)  # its border is subtracted from no crop
MEAN[0], MEAN[1, 1] = 200, 50
MEAN_CROP = MEAN[1:3, 1:3]


def run(key, step, noise=((0, 0.1), (10, 0.0)), scale=1.0):
    return photometry(
        IMAGES,
        key,
        None if step is None else jnp.int32(step),
        preprocessing=Preprocessing((), 4, 2, MEAN, np.full(3, scale, np.float32)),
        color_directions=DIRECTIONS,
        noise=piecewise(noise),
    )


def test_evaluation_subtracts_the_mean_and_nothing_else():
    np.testing.assert_array_equal(run(None, None), np.asarray(IMAGES, np.float32) - MEAN_CROP)
    np.testing.assert_allclose(run(None, None, scale=0.5), 0.5 * (np.asarray(IMAGES, np.float32) - MEAN_CROP))


def test_noise_is_one_offset_an_image_then_all_is_divided():
    noisy = np.asarray(run(jax.random.key(0), 3)) * 1.1
    offsets = noisy - np.asarray(run(None, None))
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[:, :1, :1], offsets.shape), atol=1e-3)
    covariance = np.cov(offsets[:, 0, 0].T)
    np.testing.assert_allclose(covariance, 0.01 * DIRECTIONS.T @ DIRECTIONS, rtol=0.3, atol=0.2)


def test_noise_and_division_go_together():
    np.testing.assert_array_equal(run(jax.random.key(0), 10), run(None, None))


def test_a_key_decides():
    assert (run(jax.random.key(1), 0) == run(jax.random.key(1), 0)).all()
    assert not (run(jax.random.key(1), 0) == run(jax.random.key(2), 0)).all()


def test_each_image_has_a_mean_of_0_and_a_deviation_of_1_whatever_its_brightness():
    rng = np.random.default_rng(1)
    images = rng.integers(60, 90, (4, 8, 8, 3)).astype(np.uint8)
    flat = np.full((1, 8, 8, 3), 40, np.uint8)
    own = Preprocessing((), 8, 8, np.full((8, 8, 3), 90, np.float32), np.full(3, 0.02, np.float32), each_image=True)
    found = own.inputs(jnp.asarray(images))
    x = images.astype(np.float64)
    x = x - x.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, x / (x.std(axis=(1, 2, 3), keepdims=True) + 4), atol=1e-5)
    np.testing.assert_allclose(own.inputs(jnp.asarray(images + 100)), found, atol=1e-5)
    assert not np.asarray(standardized(jnp.asarray(flat))).any()
    noisy = photometry(
        jnp.asarray(images),
        jax.random.key(0),
        jnp.int32(0),
        preprocessing=own,
        color_directions=0.02 * DIRECTIONS,
        noise=piecewise(((0, 0.1),)),
    )
    offsets = np.asarray(noisy) * 1.1 - np.asarray(found)
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[:, :1, :1], offsets.shape), atol=1e-5)
    assert 0.01 < np.abs(offsets).max() < 0.5  # 0.1 x 0.02 x directions of length 50, times a normal draw


def test_a_file_of_preprocessing_says_whether_each_image_has_a_mean_of_its_own(tmp_path):
    mean, scale = np.full((8, 8, 3), 90, np.float32), np.full(3, 0.02, np.float32)
    file = epath.Path(tmp_path / "preprocessing.npz")
    for each_image in (False, True):
        ours = Preprocessing(("a", "b"), 8, 6, mean, scale, each_image)
        file.write_bytes(to_bytes(ours))
        assert load(file).each_image is each_image
    with np.load(file) as arrays:  # a file of an earlier version
        np.savez(file, **{name: array for name, array in arrays.items() if name != "each_image"})
    assert load(file).each_image is False
    crops = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8))
    np.testing.assert_array_equal(ours.inputs(crops), standardized(crops))
    assert np.abs(load(file).inputs(crops) - standardized(crops)).max() > 0.01

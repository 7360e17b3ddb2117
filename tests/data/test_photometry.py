import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.photometry import photometry
from alexnet_jax.learning.optimizer import piecewise

DIRECTIONS = np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0], [30.0, 20.0, 40.0]], np.float32)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (400, 2, 2, 3), np.uint8))
MEAN = np.full((2, 2, 3), 100, np.float32)
MEAN[0, 0] = 50


def run(key, step, noise=((0, 0.1), (10, 0.0)), scale=1.0):
    return photometry(
        IMAGES,
        key,
        None if step is None else jnp.int32(step),
        mean_image=MEAN,
        color_directions=DIRECTIONS,
        noise=piecewise(noise),
        pixel_scale=scale,
    )


def test_evaluation_subtracts_the_mean_and_nothing_else():
    np.testing.assert_array_equal(run(None, None), np.asarray(IMAGES, np.float32) - MEAN)
    np.testing.assert_allclose(run(None, None, scale=0.5), 0.5 * (np.asarray(IMAGES, np.float32) - MEAN))


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

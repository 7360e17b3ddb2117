import numpy as np
import pytest
from etils import epath

from alexnet_jax.data import statistics
from tests.data.made import statistics_of

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), np.uint8)
IMAGES[..., 1] = IMAGES[..., 0] // 2 + IMAGES[..., 1] // 2  # colours that go together


def test_mean_and_covariance_are_those_of_all_pixels():
    found = statistics_of(IMAGES)
    pixels = IMAGES.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found.mean_image, IMAGES.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.channel_means, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(pixels.T, bias=True), rtol=1e-9)
    np.testing.assert_allclose(found.pixel_std, np.sqrt(pixels.var(axis=0).mean()), rtol=1e-9)


def test_color_directions_give_back_the_covariance():
    directions = statistics_of(IMAGES).color_directions
    np.testing.assert_allclose(directions.T @ directions, statistics_of(IMAGES).covariance, rtol=1e-9)
    deviations = np.linalg.norm(directions, axis=1)
    assert (np.diff(deviations) > 0).all()


def test_the_sign_of_a_direction_is_that_of_its_largest_component():
    rng = np.random.default_rng(1)
    for _ in range(20):
        matrix = rng.normal(size=(3, 3))
        made = statistics.Statistics(np.zeros((1, 1, 3)), matrix @ matrix.T)
        for direction in made.color_directions:
            assert direction[np.abs(direction).argmax()] > 0


def test_the_published_directions_come_out_of_their_covariance():
    """C2/make-data/input_meta: standard deviations and directions of ILSVRC-2012."""
    deviations = np.array([19.7208, 37.0939, 121.7801])
    directions = np.array([[0.41796, -0.81698, 0.39731], [-0.71258, -0.02354, 0.70120], [-0.56351, -0.57618, -0.59200]])
    published = directions * deviations[:, None]
    found = statistics.Statistics(np.zeros((1, 1, 3)), published.T @ published).color_directions
    np.testing.assert_allclose(np.abs(found), np.abs(published), atol=0.01)
    np.testing.assert_allclose(np.sqrt(np.diag(published.T @ published)), [74.0, 72.0, 77.0], atol=0.1)


def test_the_order_changes_no_bit(tmp_path):
    forward, backward = statistics_of(IMAGES), statistics_of(IMAGES[::-1])
    assert (forward.covariance == backward.covariance).all()
    statistics.save(forward, epath.Path(tmp_path))
    loaded = statistics.load(epath.Path(tmp_path), 6)
    assert (loaded.mean_image == forward.mean_image).all()
    assert (loaded.covariance == forward.covariance).all()


def test_statistics_of_nothing():
    with pytest.raises(ValueError, match="at least one image"):
        statistics.Sums.zero(6).statistics()

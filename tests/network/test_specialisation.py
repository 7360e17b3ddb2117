"""The colour share of kernels, and the permutation test between towers."""

import itertools

import numpy as np
import pytest

from alexnet_jax.network.specialisation import NOISE, colour_shares, permutation_test, specialisation


def kernel(*colours):
    """A kernel whose weights have these colours, at places of their own."""
    return np.array(colours, np.float32).reshape(len(colours), 1, 3, 1)


@pytest.mark.parametrize(
    ("colours", "share"),
    [
        ([(1, 1, 1), (-2, -2, -2)], 0),  # brightness alone
        ([(1, -1, 0), (0, 2, -2)], 1),  # colour alone
        ([(1, 0, 0)], 2 / 3),  # red is a third grey
        ([(1, 1, 1), (2, -2, 0)], 8 / 11),
        ([(1e-30, -1e-30, 0)], 1),  # whose squares float32 cannot hold
    ],
)
def test_the_colour_share_is_the_energy_outside_the_grey_axis(colours, share):
    np.testing.assert_allclose(colour_shares(kernel(*colours)), [share], atol=1e-7)


def test_scale_and_place_do_not_matter_and_noise_has_two_thirds():
    kernels = np.random.default_rng(0).normal(size=(11, 11, 3, 500)).astype(np.float32)
    shares = colour_shares(kernels)
    np.testing.assert_allclose(colour_shares(-7 * kernels[::-1]), shares, rtol=1e-6)
    assert shares.mean() == pytest.approx(NOISE, abs=0.01)


def test_a_kernel_without_weights_is_left_out():
    found = specialisation(np.zeros((2, 5, 5, 3, 4), np.float32), 0)
    assert (found.means, found.p_value) == ([None, None], None)
    assert found.facts()["kernels"] == [0, 0]


def test_the_p_value_is_that_of_all_permutations():
    first, second = np.array([0.1, 0.2, 0.35, 0.5]), np.array([0.4, 0.45, 0.6, 0.9])
    together, observed = np.concatenate([first, second]), abs(first.mean() - second.mean())
    splits = [set(split) for split in itertools.combinations(range(8), 4)]
    differences = [
        abs(np.mean([together[i] for i in s]) - np.mean([together[i] for i in range(8) if i not in s])) for s in splits
    ]
    exact = np.mean([difference >= observed - 1e-12 for difference in differences])
    assert permutation_test(first, second, 0) == pytest.approx(exact, abs=0.01)
    assert permutation_test(second, first, 1) == pytest.approx(exact, abs=0.01)


def test_towers_that_differ_have_the_smallest_p_value_and_equal_towers_the_largest():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(3, 3, 1, 48)), 3, axis=2)
    colour = rng.normal(size=(3, 3, 3, 48))
    found = specialisation(np.stack([grey, colour]), 0)
    assert found.p_value == 1 / 10_001
    assert found.means[0] == pytest.approx(0) and found.means[1] > 0.6
    assert specialisation(np.stack([colour, colour]), 0).p_value == 1
    assert specialisation(colour[None], 0).p_value is None


def test_the_permutation_test_finds_nothing_in_noise_too_often():
    rng = np.random.default_rng(0)
    values = [permutation_test(rng.normal(size=12), rng.normal(size=12), seed) for seed in range(40)]
    assert sum(value < 0.05 for value in values) <= 6

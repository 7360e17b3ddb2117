"""Kernels as pictures."""

import numpy as np

from alexnet_jax.drawing import kernels
from alexnet_jax.drawing.canvas import as_bytes


def test_grey_is_zero_and_the_largest_weight_full_colour():
    kernel = np.zeros((2, 2, 3), np.float32)
    kernel[0, 0, 0], kernel[1, 1, 2] = -0.5, 0.25
    found = kernels.as_colours(kernel)
    assert found[0, 1].tolist() == [128, 128, 128, 255]
    assert found[0, 0].tolist() == [0, 128, 128, 255]
    assert found[1, 1].tolist() == [128, 128, 191, 255]
    assert (kernels.as_colours(np.zeros((2, 2, 3), np.float32)) == [128, 128, 128, 255]).all()


def test_every_kernel_is_at_its_place_and_lines_are_transparent():
    weights = np.random.default_rng(0).normal(size=(11, 11, 3, 20)).astype(np.float32)
    picture = kernels.mosaic(weights)[:: kernels.ENLARGED, :: kernels.ENLARGED]
    assert picture.shape == (2 * 12 - 1, 16 * 12 - 1, 4)
    for number in (0, 15, 16, 19):
        top, left = number // 16 * 12, number % 16 * 12
        np.testing.assert_array_equal(
            picture[top : top + 11, left : left + 11], kernels.as_colours(weights[..., number])
        )
    assert not picture[11].any() and not picture[:, 11].any() and not picture[12:, 4 * 12 :].any()


def test_towers_are_drawn_apart_in_the_papers_grid():
    weights = np.random.default_rng(0).normal(size=(2, 11, 11, 3, 48)).astype(np.float32)
    figure = kernels.draw(weights, ["one", "two"])
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    assert first.get_position().y0 > second.get_position().y1
    np.testing.assert_array_equal(second.images[0].get_array(), kernels.mosaic(weights[1]))
    assert as_bytes(figure, ".png").startswith(b"\x89PNG") and as_bytes(figure, ".svg") == as_bytes(figure, ".svg")

"""The picture of a confusion matrix, for few and for many classes."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from alexnet_jax.data.imagenet_names import class_ids
from alexnet_jax.drawing import canvas, confusion


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_cells_of_few_classes_hold_counts_and_shares():
    figure = confusion.draw(np.array([[3, 1], [0, 0]]), ["cat", "dog"], np.array([4, 0]))
    assert texts(figure) == ["3\n75.0%", "1\n25.0%", "0\n0.0%", "0\n0.0%"]
    axes = figure.axes[0]
    assert axes.get_title() == "3 of 4 images are predicted right"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])


def test_images_without_a_prediction_count():
    figure = confusion.draw(np.array([[3, 1], [0, 2]]), ["cat", "dog"], np.array([8, 2]))
    assert texts(figure) == ["3\n37.5%", "1\n12.5%", "0\n0.0%", "2\n100.0%"]
    assert figure.axes[0].get_title() == "5 of 10 images are predicted right"


def test_counts_stand_out_from_their_cells():
    def luminance(colour):
        share = np.array(to_rgb(colour))
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    border = round(100 * confusion.DARK_CELL)
    for right in (*range(0, 101, 10), border - 1, border + 1):
        axes = confusion.draw(np.array([[right, 100 - right], [0, 1]]), ["cat", "dog"], np.array([100, 1])).axes[0]
        cell = axes.images[0].to_rgba(right / 100)[:3]
        low, high = sorted([luminance(cell), luminance(axes.texts[0].get_color())])
        assert (high + 0.05) / (low + 0.05) > 4, f"WCAG's ratio of contrast, at {right} %"


@pytest.mark.parametrize(("classes", "cells"), [(61, 61), (250, 250), (1000, 250), (1001, 201)])
def test_many_classes_have_a_list_and_cells_that_can_be_seen(classes: int, cells: int):
    names = [*class_ids(), "unicorn"][:classes]
    matrix = np.diag(np.full(classes, 5))
    matrix[classes - 1, 2] = 4
    matrix[7, 8] = 2
    figure = confusion.draw(matrix, names, matrix.sum(axis=1))
    shares = figure.axes[0].images[0].get_array()
    assert shares.shape == (cells, cells)
    assert shares[-1, 2 * cells // classes] == pytest.approx(4 / 9), "a single confusion is not lost"
    listed = " ".join(texts(figure))
    assert "cock" in listed and "hen" in listed and "great white shark" in listed
    assert listed.index("great white shark") < listed.index("hen"), "the commonest first"


def test_the_commonest_confusions_are_in_order():
    matrix = np.array([[9, 2, 0], [5, 9, 2], [0, 0, 9]])
    assert confusion.commonest(matrix, 2) == [(5, 1, 0), (2, 0, 1)]
    assert confusion.commonest(matrix, 9) == [(5, 1, 0), (2, 0, 1), (2, 1, 2)]
    assert confusion.commonest(np.eye(3, dtype=int), 9) == []


def test_names_are_short_and_apart():
    names = confusion.labels_of(["n02012849", "n03126707", "n01440764", "c" * 30 + "1", "a$b$"])
    assert names[0] == "crane (n02012849)" and names[1] == "crane (n03126707)", "two classes of one name"
    assert names[2] == "tench"
    assert len(names[3]) <= confusion.LETTERS and names[3].endswith("c1"), "both ends stay"
    assert names[4].replace("\\$", "$") == "a$b$" and "\\$" in names[4], "no formula"


@pytest.mark.parametrize("classes", [1, 2, 3, 20, 21, 60, 61])
@pytest.mark.parametrize("suffix", canvas.SUFFIXES)
def test_every_number_of_classes_becomes_a_file(classes: int, suffix: str):
    names = [f"クラス$ {number}" for number in range(classes)]  # a script that the font may lack
    matrix = np.random.default_rng(0).integers(0, 1000, (classes, classes))
    content = canvas.as_bytes(confusion.draw(matrix, names, matrix.sum(axis=1)), suffix)
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")

"""The two halves of figure 4, as pictures and as parts of a page: lengths, order and colours."""

import re

import numpy as np
from matplotlib.colors import to_hex

from alexnet_jax.drawing import neighbours, page, predictions
from alexnet_jax.drawing.canvas import FIRST, INK, SECOND
from alexnet_jax.drawing.neighbours import Neighbour, Query
from alexnet_jax.drawing.predictions import Answer
from alexnet_jax.evaluation.tally import Tally
from alexnet_jax.report import images
from alexnet_jax.report.examination import Examined, Nearest

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
ANSWER = Answer("file.png", PIXELS, ["cat", "dog", "fox"], [0.7, 0.2, 0.1], "dog")
QUERY = Query("q", PIXELS, "cat", [Neighbour("a", PIXELS, "cat", 0.5), Neighbour("b", PIXELS, "dog", 1.25)])


def test_bars_are_as_long_as_the_probabilities_and_the_true_class_has_its_own_colour():
    below = next(axes for axes in predictions.draw([ANSWER]).axes if axes.patches)
    assert [bar.get_width() for bar in below.patches] == ANSWER.probabilities
    assert [to_hex(bar.get_facecolor()) for bar in below.patches] == [FIRST, SECOND, FIRST]
    texts = [text.get_text() for text in below.texts]
    assert texts == ["dog", "70.0%", "cat", "20.0%", "dog", "10.0%", "fox"]
    places = [bar.get_y() for bar in below.patches]
    first, last = below.get_ylim()
    assert places == sorted(places) and first > last, "the likeliest on top"


def test_bars_on_the_page():
    html = page.answers([ANSWER])
    bars = re.findall(r"<li( class=true)?><i style=\"width:([\d.]+)%\"></i><span>(\w+)</span>", html)
    assert bars == [("", "70.0", "cat"), (" class=true", "20.0", "dog"), ("", "10.0", "fox")]


def test_neighbours_of_another_class_have_another_colour():
    texts = [axes.texts for axes in neighbours.draw([QUERY]).axes]
    assert [[text.get_text() for text in each] for each in texts] == [
        ["cat", "test image"],
        ["cat", "0.5"],
        ["dog", "1.25"],
    ]
    assert [to_hex(name.get_color()) for name, _ in texts] == [to_hex(colour) for colour in (INK, INK, SECOND)]
    html = page.neighbours([QUERY])
    assert re.findall(r"<div( class=other)?>(\w+)<", html) == [("", "cat"), ("", "cat"), (" class=other", "dog")]


def test_captions_count_what_is_right():
    answers = [Answer("a", PIXELS, ["cat", "dog"], [0.6, 0.4], truth) for truth in ("cat", "dog", "dog")]
    examined = Examined("test", Tally(2), None, 2, answers, [])
    assert "1 of 3 have their true class first" in images.predictions_exhibit(examined).section.caption
    caption = images.neighbours_exhibit(Nearest([QUERY], "fc7", 9, 0.25), "test", "train", 9).section.caption
    assert "1 of 2 neighbours have the class" in caption
    assert "by chance there would be 0.5. " in caption and "among all 9 images of train, by" in caption  # 0.25 of 2
    part = images.neighbours_exhibit(Nearest([QUERY], "fc7", 9, 0.25), "test", "train", 20).section.caption
    assert "among 9 of the 20 images of train, at even distances, by" in part


def test_many_classes_have_a_table_of_confusions_and_a_top5_error():
    probs = np.full((4, 12), 1e-3, np.float32)
    probs[:3, 7], probs[:3, 3] = 0.5, 0.3  # class 3 is second
    probs[3, :6] = 0.3, 0.2, 0.15, 0.12, 0.1, 0.05  # class 5 is sixth
    tally, names = Tally(12), [f"c{i}" for i in range(12)]
    tally.add(np.array([3, 3, 3, 5]), np.log(probs))
    section = images.confusion_exhibit(Examined("test", tally, tally.confusion(), 4, [], []), names).section
    assert "<td>c3 as c7</td><td class=number>3</td>" in section.body
    assert "for 4 images of test, centre crops: top-1 error 100.00 %, top-5 error 25.00 %." in section.caption

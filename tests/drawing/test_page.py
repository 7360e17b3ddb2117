"""The page, in a real browser: no network, no complaint, no scrolling sideways, text for every picture."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.drawing import curves, page
from alexnet_jax.drawing.neighbours import Neighbour, Query
from alexnet_jax.drawing.page import Section
from alexnet_jax.drawing.predictions import Answer
from tests import chromium

NASTY = "<script>alert(1)</script>\"' & a" + "very" * 60


@pytest.fixture(scope="module")
def text():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    small = pixels[:32, :32]
    answer = Answer("file.png", pixels, ["n02123045", NASTY], [0.75, 0.25], "n02123045")
    other = Answer(NASTY, small, [NASTY], [1.0], None)
    query = Query("q", pixels, "a", [Neighbour(f"n{i}", small, "ab"[i % 2], i / 3) for i in range(6)])
    figure = curves.draw([curves.Curve("x", [0, 1], [2.0, 1.0])], "loss", "nats")
    sections = [
        Section("Curves", page.charts([(figure, "loss from 2 to 1")] * 3), "caption", "In the paper: none."),
        Section("Answers", page.answers([answer, other]), NASTY),
        Section("Neighbours", page.neighbours([query]), "caption"),
        Section("Table", page.table(["", "number"], [(NASTY, "1")]) + page.note(NASTY), "caption"),
    ]
    return page.page(f"AlexNet: {NASTY}", [("recipe", NASTY)], sections, [NASTY])


def test_text_of_users_is_no_markup(text):
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") > 8


def test_every_picture_has_its_content_as_text(text):
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', text)
    assert len(alts) == text.count("<img ") == 12
    assert "file.png, true class tabby (n02123045); the network says tabby (n02123045) 75.0 %, " in alts[3]
    assert alts[6] == "neighbour 1: n0, true class a, at distance 0"
    assert alts[:3] == ["loss from 2 to 1"] * 3


def test_everything_is_in_the_page(text):
    places = re.findall(r'(?:src|srcset|href)="([^"]{0,20})', text)
    assert places and all(place.startswith("data:") for place in places)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


@pytest.mark.skipif(chromium.program() is None, reason=chromium.REASON)
def test_the_page_in_a_browser(text, tmp_path):
    (tmp_path / "index.html").write_text(text)
    with chromium.browser(tmp_path / "profile") as browser:
        backgrounds = {}
        for width, dark in ((1280, False), (375, False), (1280, True), (375, True)):
            browser.open(tmp_path / "index.html", width=width, dark=dark)
            assert browser.complaints() == []
            assert browser.requests() == [(tmp_path / "index.html").as_uri()]
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value("[...document.images].every(image => image.naturalWidth > 0)")
            assert browser.value("[...document.images].every(image => image.alt)")
            with Image.open(io.BytesIO(browser.screenshot())) as shot:
                assert shot.width == width and shot.height > 900
                backgrounds[width, dark] = shot.convert("L").getpixel((2, 2))
                assert len(set(shot.convert("L").resize((100, 100)).tobytes())) > 20  # something is seen
        assert min(backgrounds[width, False] for width in (375, 1280)) > 200
        assert max(backgrounds[width, True] for width in (375, 1280)) < 60


@pytest.mark.skipif(chromium.program() is None, reason=chromium.REASON)
def test_the_browser_reports_complaints_and_requests(tmp_path):
    page = '<img src="http://127.0.0.1:9/a.png"><script>console.error("x"); nowhere()</script>'
    (tmp_path / "bad.html").write_text(page)
    with chromium.browser(tmp_path / "profile") as browser, pytest.raises(AssertionError):
        browser.open(tmp_path / "bad.html", width=800)  # the picture cannot be decoded
    assert len(browser.complaints()) >= 3
    assert browser.requests()[1:] == ["http://127.0.0.1:9/a.png"]

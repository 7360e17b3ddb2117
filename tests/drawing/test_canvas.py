"""Figures as files, and their colours on dark pages."""

import re
import sys
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from alexnet_jax.drawing import canvas, curves
from alexnet_jax.errors import MissingPackageError


def test_matplotlib_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'alexnet_jax\[figures\]'"):
        canvas.need_matplotlib()


def test_a_drawing_leaves_no_colour_of_the_day_in_the_dark():
    figure = curves.draw([curves.Curve(name, [0, 1], [2.0, 1.0]) for name in "abcd"], "loss", "nats")
    svg = canvas.as_bytes(figure, ".svg", transparent=True).decode()
    used = set(re.findall(r"#[0-9a-f]{6}\b", svg)) - {"#ffffff"}
    assert used and used <= set(canvas.DARK)
    assert not set(re.findall(r"#[0-9a-f]{6}\b", canvas.in_the_dark(svg))) & set(canvas.DARK)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("cat", "cat"), ("a$b$", r"a\$b\$"), ("two\nlines\0", "two lines"), ("ä" * 50, "ä" * 39 + "…")],
)
def test_names_that_a_picture_cannot_show(name: str, shown: str):
    assert canvas.plain(name) == shown


def test_a_script_without_a_font_is_no_error():
    figure = curves.draw([curves.Curve("猫", [0, 1], [2.0, 1.0]), curves.Curve("犬", [0], [1.0])], "猫", "犬")
    assert canvas.as_bytes(figure, ".png")


def test_a_letter_that_the_first_font_lacks_comes_from_an_installed_one(tmp_path: Path):
    pen = TTGlyphPen(None)
    for move, point in zip((pen.moveTo, pen.lineTo, pen.lineTo), ((0, 0), (900, 0), (0, 900)), strict=True):
        move(point)
    pen.closePath()
    builder = FontBuilder(unitsPerEm=1000)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": canvas.MORE_FONTS[3], "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "font.ttf")

    def drawn() -> tuple[bytes, bytes]:
        names = ("猫", "cat")
        return tuple(canvas.as_bytes(curves.draw([curves.Curve("a", [0], [1.0])], name, ""), ".png") for name in names)

    before = drawn()
    fonts = font_manager.fontManager.ttflist
    count = len(fonts)
    font_manager.fontManager.addfont(tmp_path / "font.ttf")
    try:
        after = drawn()
    finally:
        del fonts[count:]
    assert before[0] != after[0] and before[1] == after[1]
    assert drawn() == before


def test_a_noisy_curve_gets_a_running_mean_that_keeps_its_place():
    epochs = [float(i) for i in range(200)]
    figure = curves.draw([curves.Curve("line", epochs, [2 * epoch for epoch in epochs], noisy=True)], "t", "u")
    thin, thick = figure.axes[0].lines
    assert len(thin.get_xdata()) == 200
    assert len(thick.get_xdata()) == 197
    assert thick.get_ydata() == pytest.approx(2 * thick.get_xdata())

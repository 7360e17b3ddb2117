"""The line of progress of the commands that start from a trained network."""

import itertools

import pytest

from alexnet_jax import progress_line as module


def test_the_line_of_progress_has_the_time_left_and_its_end_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """A clock that stands at 10 s at the first call, and goes on by 20 s a call."""
    clock = itertools.count(10.0, 20.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    show = module.progress_line("searched", 1_000, "pictures")
    for done in (100, 300, 1_000):
        show(done)
    lines = capsys.readouterr().err.split("\r")
    assert [line.rstrip(" ") for line in lines] == [
        "",
        "searched 100/1,000 pictures",  # whose time is that of compilation
        "searched 300/1,000 pictures  left 1:10",  # 200 in 20 s, and 700 are left
        "searched 1,000/1,000 pictures" + " " * (module.LINE - 29) + "\n",
    ]


def test_lines_of_progress_come_now_and_then_and_on_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(module.time, "monotonic", lambda: 10.0)
    show = module.progress_line("searched", 10)
    show(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    for done in range(1, 11):
        show(done)
    assert [line.split()[1] for line in capsys.readouterr().err.split("\r")[1:]] == ["1/10", "10/10"]

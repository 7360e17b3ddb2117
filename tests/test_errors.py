"""The words of errors that libraries raise."""

import errno
import io

import pytest

from alexnet_jax.errors import reason_of, words_of
from alexnet_jax.formats import unpickle
from alexnet_jax.formats.errors import FormatError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("two\nlines,  blanks\t"), "two lines, blanks"),
        (ValueError("x" * 300), "x" * 200),
        (EOFError(), "EOFError"),
        (AssertionError(" \n"), "AssertionError"),
        (UnicodeError(""), "UnicodeError"),
    ],
)
def test_the_words_of_an_error_are_one_line(error: Exception, words: str):
    assert words_of(error) == words


def test_more_or_fewer_words_of_an_error():
    error = ValueError("a " * 300)
    assert words_of(error, 5) == "a a a"
    assert len(words_of(error, None)) == 599


def test_the_reason_of_an_operating_systems_error():
    assert reason_of(OSError(errno.ENOSPC, "No space left on device", "/file")) == "No space left on device"
    assert reason_of(OSError("503:\nbusy")) == "503: busy"
    assert reason_of(TimeoutError()) == "TimeoutError"


def test_an_error_without_a_text_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    def genops(file: io.BytesIO):
        raise EOFError

    monkeypatch.setattr(unpickle.pickletools, "genops", genops)
    with pytest.raises(FormatError, match=r"its pickle is damaged: EOFError$"):
        unpickle.read(io.BytesIO(), {})

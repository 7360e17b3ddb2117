"""Pickles are read as data: nothing that they name is imported, and nothing is called."""

import collections
import io
import os
import pickle

import numpy as np
import pytest

from alexnet_jax.formats import pickled_arrays, unpickle
from alexnet_jax.formats.errors import FormatError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_are_what_pickle_reads(protocol):
    value = {
        "a": [1, -7, 2**70, 1.5, None, True, False, "text \u00e9", b"\x00\xff", (), (1,), (1, 2, 3, 4)],
        "b": {"c": {}, 3: [[], [[1]]]},
        "d": collections.OrderedDict(x=1, y=[2]),
    }
    if protocol < 3:  # bytes are a call of `_codecs.encode` there
        value["a"].remove(b"\x00\xff")
    read = unpickle.read(io.BytesIO(pickle.dumps(value, protocol)), set())
    assert read == pickle.loads(pickle.dumps(value, protocol)) == value


def test_a_value_that_is_named_twice_is_one():
    inner = [1]
    first, second = unpickle.read(io.BytesIO(pickle.dumps((inner, inner))), set())
    assert first is second


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "<i8", "|u1"])
def test_arrays_of_numpy(protocol, kind):
    arrays = {
        "net": {
            "c": np.arange(24).reshape(2, 3, 4).astype(kind),
            "f": np.asfortranarray(np.arange(6).reshape(2, 3)).astype(kind),
        },
        "empty": np.zeros((0, 3), kind),
    }
    found = pickled_arrays.read(pickle.dumps(arrays, protocol))
    assert set(found) == {"net/c", "net/f", "empty"}
    for name, array in (("net/c", arrays["net"]["c"]), ("net/f", arrays["net"]["f"]), ("empty", arrays["empty"])):
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, __import__, open, getattr, np.load, pickle.loads, print, os.getcwd]
)
def test_a_call_that_no_array_needs_does_not_happen(protocol, function, tmp_path, capfd):
    mark = tmp_path / "ran"
    text = f"__import__('pathlib').Path({str(mark)!r}).touch()" if function in (eval, exec) else f"touch {mark}"
    data = pickle.dumps({"w": Evil(function, text)}, protocol)
    with pytest.raises(FormatError, match=r"asks for '.+', and an import takes arrays alone and runs no code"):
        unpickle.read(io.BytesIO(data), pickled_arrays.ALLOWED)
    assert not mark.exists() and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch x'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"(S'touch x'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch x'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x07touch x\x85R.",
        b"\x80\x02cnumpy\nndarray\n\x81.",  # NEWOBJ without arguments
        b"\x80\x02\x82\x01.",  # EXT1
        b"cnumpy\nndarray\n}S'__class__'\nNsb.",  # BUILD on a class
        b"\x80\x04\x8f.",  # a set
        b"\x80\x04\x97.",  # a buffer out of band
        b"\x80\x02}(I1\nI2\nI3\nu.",
        b"\x80\x02](K\x01s.",
        b"\x80\x02}\x85}\x85K\x01s.",  # a dictionary as a key
        b"\x80\x02t.",
        b"\x80\x02\x85\x85\x85.",
        b"\x80\x02R.",
        b"\x80\x02h\x07.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x02K\x01",
        b".",
        b"",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"I999999999999999999999999999\nL" + b"9" * 5000 + b"L\n.",
    ],
)
def test_a_damaged_or_hostile_pickle_is_one_line(data):
    with pytest.raises(FormatError) as caught:
        unpickle.read(io.BytesIO(data), pickled_arrays.ALLOWED)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_pickle_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_STEPS", 1000)
    with pytest.raises(FormatError, match="more than 1,000 instructions"):
        unpickle.read(io.BytesIO(b"N" * 2000), pickled_arrays.ALLOWED)


def test_dictionaries_within_themselves_end():
    own = {}
    own["again"] = own
    wide = {}
    for _ in range(4):
        wide = {str(number): wide for number in range(100)}
    for value in (own, wide):
        with pytest.raises(FormatError, match="larger or nested deeper"):
            pickled_arrays.read(pickle.dumps(value))


@pytest.mark.parametrize(
    "state",
    [
        (1, (2,), np.dtype("O"), False, [1, 2]),
        (1, (2**60,), np.dtype("f4"), False, b"\0" * 8),
        (1, (-1,), np.dtype("f4"), False, b""),
        (1, (3,), np.dtype("f4"), False, b"\0" * 8),
        (1, (2,), np.dtype([("a", "f4")]), False, b"\0" * 8),
        (1, (2,), "f4", False, b"\0" * 8),
        (1,),
        None,
    ],
)
def test_an_array_that_makes_no_sense(state):
    class Made:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    with pytest.raises(FormatError, match=r"describes an array|other things than numbers|asks for"):
        pickled_arrays.read(pickle.dumps({"w": Made()}))

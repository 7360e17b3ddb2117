import json
import math

import numpy as np
import pytest

from alexnet_jax import strict_json


def refuse(constant: str):
    raise AssertionError(f"{constant} is not JSON")


def test_numbers_that_are_not_finite_become_null():
    value = {"a": math.nan, "b": [1.5, (math.inf, np.float64("-inf"))], "c": {"d": None, "e": True, "f": 3, "g": "NaN"}}
    text = strict_json.dumps(value)
    assert json.loads(text, parse_constant=refuse) == {
        "a": None,
        "b": [1.5, [None, None]],
        "c": {"d": None, "e": True, "f": 3, "g": "NaN"},
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_other_values_are_written_as_json_dumps_writes_them(indent: int | None):
    value = {"count": 654, "top1": 0.1963, "names": ["ä", ""], "none": None}
    assert strict_json.dumps(value, indent=indent) == json.dumps(value, indent=indent)


@pytest.mark.parametrize("value", [0, -3, 2.5, 1.7e308, np.float64(1.0)])
def test_numbers_that_a_float_can_hold_are_finite(value: float):
    assert strict_json.is_finite(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, True, "1", None, [1]])
def test_other_values_of_a_file_are_no_finite_numbers(value: object):
    assert not strict_json.is_finite(value)

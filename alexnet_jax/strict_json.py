"""JSON that every reader parses. Python's own writes `NaN` and `Infinity`, which are not JSON."""

import json
import math
import sys
from typing import Any


def dumps(value: Any, *, indent: int | None = None) -> str:
    """The JSON text of a value. A float that is not finite becomes `null`, and its key stays.

    Args:
      value: dictionaries, lists, tuples, strings, numbers, booleans and None.
      indent: spaces of a level; None: all on one line.
    """
    return json.dumps(_with_nulls(value), indent=indent, allow_nan=False)


def is_finite(value: Any) -> bool:
    """Whether a value that was read is a number, and one that a float can hold. True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

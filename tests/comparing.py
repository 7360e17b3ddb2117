"""What runs leave, read and compared."""

import json
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def metrics_of(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl, without the NaN and Infinity that Python would read."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=_refuse) for line in lines]


def assert_same(a, b) -> None:
    """All leaves of two trees have the same bits."""
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import resource
import numpy as np
from alexnet_jax import allocator

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = allocator.keep_memory()
for _ in range(3):
    np.ones(2**20, np.float64)
before = faults()
for _ in range(10):
    np.ones(2**20, np.float64)
print(kept, faults() - before)
"""


def run(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of ten arrays of 8 MiB after the first ones."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    return told[0] == "True", int(told[1])


@pytest.mark.skipif(sys.platform != "linux", reason="of the GNU C library")
def test_memory_given_back_is_taken_again():
    kept, faults = run()
    assert kept
    assert faults < 100  # each array has 2,048 pages


def test_who_chooses_otherwise_is_left_alone():
    kept, faults = run(MALLOC_TRIM_THRESHOLD_="131072", NUMPY_MADVISE_HUGEPAGE="0")
    assert not kept
    assert faults > 10_000

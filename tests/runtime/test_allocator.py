import os
import subprocess
import sys

import pytest

from alexnet_jax.runtime import allocator
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library alone has these options")
FAULTS = """
import resource, sys
import numpy as np
from alexnet_jax.runtime import allocator

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

size, large = int(sys.argv[1]), len(sys.argv) > 2
kept = allocator.keep_memory()
if large:
    allocator.keep_large_arrays()
for _ in range(3):
    np.ones(size, np.uint8)
before = faults()
for _ in range(10):
    np.ones(size, np.uint8)
print(int(kept), faults() - before)
"""
PAGES = """
import numpy as np
from alexnet_jax.runtime import allocator

def resident():
    return int(open("/proc/self/statm").read().split()[1])

allocator.keep_memory()
arrays = [np.ones(2**13, np.float64) for _ in range(1600)]  # 100 MiB
del arrays[::2], arrays[:-1:2]  # a quarter is left, in between
held = resident()
allocator.trim()
print(held - resident(), sum(array.sum() == 2**13 for array in arrays))
"""
HEAPS = """
import ctypes, sys, tempfile
import jax
import jax.numpy as jnp
from alexnet_jax import cli

cli.start(cpu_devices=2)
x = jnp.ones((8, 512, 512))
jax.jit(lambda x: jnp.sin(x @ x) @ x)(x).block_until_ready()  # on several threads
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(library.fopen(file.name.encode(), b"w"))
    assert library.malloc_info(0, stream) == 0
    library.fclose(stream)
    print(file.read().count(b"<heap nr="), 0)
"""


def run(program: str, *arguments: object, **environment: str) -> tuple[int, int]:
    """The two numbers that the program prints."""
    printed = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if not name.startswith(allocator.USER_OPTIONS)}
        | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    return int(printed[0]), int(printed[1])


def test_freed_memory_is_reused():
    kept, faults = run(FAULTS, 2**23)
    assert kept
    assert faults < 100  # each array has 2,048 pages


def test_the_threads_of_jax_share_one_heap():
    """Heaps of threads hold 64 MiB at most: each update of the full network had 360,000 page faults."""
    assert run(HEAPS)[0] == 1


def test_memory_of_large_arrays_returns_to_the_system_until_the_programs_are_compiled():
    plain = {"NUMPY_MADVISE_HUGEPAGE": "0"}
    assert run(FAULTS, 2**26, **plain)[1] > 100_000
    assert run(FAULTS, 2**26, "large", **plain)[1] < 100
    assert run(FAULTS, 5 * 2**29, "large", **plain)[1] < 100, "a bound of 2 GiB"


def test_options_of_the_user_stay():
    kept, faults = run(FAULTS, 2**23, "large", MALLOC_TRIM_THRESHOLD_="131072", NUMPY_MADVISE_HUGEPAGE="0")
    assert not kept
    assert faults > 10_000


def test_free_pages_between_used_ones_return_to_the_system():
    pages, whole = run(PAGES)
    assert pages > 0.7 * 25_600  # of which three quarters were freed
    assert whole == 400

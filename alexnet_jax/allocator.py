"""The C library's memory: what an update gives back is kept for the next one.

XLA takes every array of an update anew. The GNU C library maps large ones freshly from the system and gives them back
at once, so that each update touches all its memory for the first time, a page fault every 4 KiB.
"""

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # malloc.h
HEAP = 2**26  # bytes that a thread's heap holds; larger arrays are mapped all the same
OWN = ("MALLOC_", "GLIBC_TUNABLES")  # how users choose for themselves


def keep_memory() -> bool:
    """Keeps freed memory in this process; whether the C library can, and the environment does not choose otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith(OWN) for name in os.environ):
        return False
    return all(mallopt(*option) for option in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, HEAP)))

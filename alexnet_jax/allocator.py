"""The C library's memory: what an update gives back is kept for the next one, and no longer than that.

XLA takes every array of an update anew. The GNU C library gives large ones back to the system at once, so that each
update touches all its memory for the first time, a page fault every 4 KiB. And it has up to eight heaps a core, among
which the threads of evaluations and saves that come and go spread what they leave, a little more each time.
Other C libraries are left as they are.
"""

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8  # malloc.h
OPTIONS = {
    MMAP_THRESHOLD: 2**25,  # bytes, the most there may be: larger arrays still go back at once, for memory's sake
    TRIM_THRESHOLD: 2**31 - 1,
    TOP_PAD: 2**27,  # above a heap's 64 MiB, so that one that is all free stays too
    ARENA_MAX: 2,
}
OWN = ("MALLOC_", "GLIBC_TUNABLES")  # how users choose for themselves

_library = ctypes.CDLL(None) if os.name == "posix" else None
_mallopt = getattr(_library, "mallopt", None)
_malloc_trim = getattr(_library, "malloc_trim", None)


def keep_memory() -> bool:
    """Keeps freed memory in this process; whether the C library can, and the environment does not choose otherwise."""
    if _mallopt is None or any(name.startswith(OWN) for name in os.environ):
        return False
    return all(_mallopt(*option) for option in OPTIONS.items())


def give_back() -> None:
    """Returns all free pages to the system; what comes next takes again what it needs."""
    if _malloc_trim is not None:
        _malloc_trim(0)

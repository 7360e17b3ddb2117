"""The C library's memory: what an update gives back is kept for the next one, and no longer than that.

XLA takes every array of an update anew. The GNU C library gives large ones back to the system at once, so that each
update touches all its memory for the first time, a page fault every 4 KiB. And it has up to eight heaps a core, among
which the threads of evaluations and saves that come and go spread what they leave, a little more each time.
So here is one heap, for arrays of any size. Other C libraries are left as they are.
"""

import ctypes
import os

MAX_FAST, TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = 1, -1, -2, -4, -8  # malloc.h
OPTIONS = {
    MMAP_MAX: 0,  # none is a mapping of its own, which goes back when it is freed
    ARENA_MAX: 1,  # a hole that one thread left serves all
    MAX_FAST: 0,  # small pieces that are freed join the holes beside them
    TRIM_THRESHOLD: 2**31 - 1,  # bytes, the most there may be
    TOP_PAD: 2**24,
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


def settle(updates: int) -> None:
    """Gives back after a process's update 1, 2, 4, 8, ...: to be called after each.

    Compilation leaves as much as an update needs, and the first updates leave holes into which the next one's arrays
    do not fit, fewer from one to the next.
    """
    if not updates & (updates - 1):
        give_back()

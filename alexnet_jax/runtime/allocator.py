"""Keeps freed memory in the process: the arrays of an update reuse the pages of the update before.

XLA allocates every array of an update anew. The GNU C library returns large blocks to the system at once, so each
update touches all its memory for the first time: a page fault every 4 KiB, and pages that the system clears. The
library also has up to eight heaps a core. The threads of evaluations and saves come and go, and spread what they leave
over these heaps, a little more each time. Other C libraries are left as they are.
"""

import ctypes
import os
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -2, -3, -4, -8  # malloc.h
OPTIONS = {
    ARENA_MAX: 1,  # further heaps hold 64 MiB at most, and larger blocks would return to the system at once
    MMAP_THRESHOLD: 2**25,  # bytes, the largest that the library allows
    TRIM_THRESHOLD: -1,  # never
    TOP_PAD: 2**27,  # bytes
}
USER_OPTIONS = ("MALLOC_", "GLIBC_TUNABLES")  # variables by which users set the library's options

_library = ctypes.CDLL(None)
_mallopt: Any = getattr(_library, "mallopt", None)
_malloc_trim = getattr(_library, "malloc_trim", None)
_keeps = _keeps_large = False


def keep_memory() -> bool:
    """Keeps freed memory in this process.

    Returns:
      Whether memory is kept: the C library can, and the environment sets no options of the library.
    """
    global _keeps
    if _mallopt is not None and not any(name.startswith(USER_OPTIONS) for name in os.environ):
        _keeps = all(_mallopt(*option) for option in OPTIONS.items())
    return _keeps


def keep_large_arrays() -> None:
    """After `keep_memory`, keeps the memory of large arrays too. Call it after the compilation of their programs.

    Before, the blocks that a compiler leaves would lie among those of the arrays, and the next arrays would not fit
    into the gaps.
    """
    global _keeps_large
    if _keeps and not _keeps_large:
        _keeps_large = bool(_mallopt(MMAP_MAX, 0))


def trim() -> None:
    """Returns all free pages to the system."""
    if _malloc_trim is not None:
        _malloc_trim(0)

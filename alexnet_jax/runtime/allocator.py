"""The C library's memory: what an update gives back is kept for the next one, and no longer than that.

XLA takes every array of an update anew. The GNU C library gives large ones back to the system at once, so that each
update touches all its memory for the first time, a page fault every 4 KiB, and the system clears it. And it has up to
eight heaps a core, among which the threads of evaluations and saves that come and go spread what they leave, a little
more each time. Other C libraries are left as they are.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any, TypeVar

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -2, -3, -4, -8  # malloc.h
OPTIONS = {
    ARENA_MAX: 1,  # heaps beside the first hold 64 MiB at most: what is larger would go back at once
    MMAP_THRESHOLD: 2**25,  # bytes, the most there may be
    TRIM_THRESHOLD: -1,  # never
    TOP_PAD: 2**27,  # bytes
}
OWN = ("MALLOC_", "GLIBC_TUNABLES")  # how users choose for themselves

T = TypeVar("T")

_library = ctypes.CDLL(None) if os.name == "posix" else None
_mallopt: Any = getattr(_library, "mallopt", None)
_malloc_trim = getattr(_library, "malloc_trim", None)
_keeping = _keeping_large = False


def keep_memory() -> bool:
    """Keeps freed memory in this process; whether the C library can, and the environment does not choose otherwise."""
    global _keeping
    if _mallopt is not None and not any(name.startswith(OWN) for name in os.environ):
        _keeping = all(_mallopt(*option) for option in OPTIONS.items())
    return _keeping


def keep_large() -> None:
    """After `keep_memory`, keeps large arrays' memory too. Call it when the programs that take them are compiled.

    Sooner, what a compiler leaves would come to lie in their midst, and the next ones would no longer fit in between.
    """
    global _keeping_large
    if _keeping and not _keeping_large:
        _keeping_large = bool(_mallopt(MMAP_MAX, 0))


def keeps_large(program: Callable[..., T]) -> Callable[..., T]:
    """The program, which JAX compiles at its first call; `keep_large` follows each call."""

    def call(*arguments: Any) -> T:
        result = program(*arguments)
        keep_large()
        return result

    return call


def give_back() -> None:
    """Returns all free pages to the system; what comes next takes again what it needs."""
    if _malloc_trim is not None:
        _malloc_trim(0)

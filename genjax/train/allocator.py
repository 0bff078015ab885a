"""Keeps memory that a step gives back, because asking the system for it again costs more than the step's arithmetic.

A training step on a CPU takes tens of megabytes for what it keeps between forward and backward pass, and gives them
back at its end. glibc returns blocks of that size to the system, which then hands out zeroed pages one page fault at a
time: up to half of a step's time.
"""

from __future__ import annotations

import ctypes
import os

# <malloc.h>, <sys/mman.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MADV_HUGEPAGE = 14
_PAD = 64 * 2**20  # bytes that the heap grows by, at least
_RESERVE = 2**30  # bytes of addresses, not of memory, that are asked for in large pages
_PAGE = 2**21
_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tells malloc to serve large blocks from one heap, in large pages, and to keep the heap until the process ends.

    The peak of memory stays about what it was; what falls is how often pages come and go. To be called before jax
    starts its threads, which would have heaps of their own. Where one of malloc's own environment variables is set, or
    malloc is not glibc's, nothing is changed.

    Returns:
      Whether malloc has been told.
    """
    if any(name.startswith(_VARIABLES) for name in os.environ):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (raises where this is another C library)
    except (OSError, AttributeError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    if not all(libc.mallopt(*pair) for pair in settings):
        return False
    _use_large_pages(libc)
    return bool(libc.mallopt(_M_TOP_PAD, _PAD))


def _use_large_pages(libc: ctypes.CDLL) -> None:
    """Grows the heap once by addresses that the system backs with pages of 2 MB where it can (``madvise``)."""
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    begin = -(-libc.sbrk(0) // _PAGE) * _PAGE
    libc.mallopt(_M_TOP_PAD, _RESERVE)
    libc.free(libc.malloc(2 * _PAGE))  # larger than what the heap has left, so that it grows
    end = libc.sbrk(0) // _PAGE * _PAGE
    if end > begin:
        libc.madvise(begin, end - begin, _MADV_HUGEPAGE)  # advice: a system without large pages ignores it

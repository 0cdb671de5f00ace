"""Memory whose fresh pages are cheap: scratch that a thread keeps, and large pages for large results.

Touching a page for the first time costs about as much as transforming what is on it. Above the allocator's threshold (32 MB
with glibc) every result is made of fresh pages; Linux can be asked for pages of 2 MiB there.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

# What a thread keeps between calls; more is given back after each.
KEPT_BYTES = 2**22
LARGE_PAGE_BYTES = 2**21
MADV_HUGEPAGE = 14

_kept = threading.local()


def scratch(size: int, threads: int = 1, purpose: str = "") -> Tensor:
    """At least `size` bytes of this thread's own, for the use of so many threads, one piece a purpose; uninitialised, aligned
    to 64 bytes."""
    if size > KEPT_BYTES * threads:
        return with_large_pages(torch.empty(size, dtype=torch.uint8, device="cpu"))
    kept: dict[str, Tensor] = _kept.__dict__
    if purpose not in kept or kept[purpose].numel() < size:
        kept.pop(purpose, None)  # what was too small is given back first
        kept[purpose] = torch.empty(size, dtype=torch.uint8, device="cpu")
    return kept[purpose]


def with_large_pages(x: Tensor) -> Tensor:
    """x, a fresh tensor; what whole large pages it spans is asked to be made of them."""
    advise = _madvise()
    start = -(-x.data_ptr() // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
    size = (x.data_ptr() + x.numel() * x.element_size() - start) // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES
    if advise is not None and size > 0:
        advise(start, size, MADV_HUGEPAGE)  # a wish: what it returns changes nothing
    return x


@lru_cache(maxsize=1)
def _madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_int
    return function

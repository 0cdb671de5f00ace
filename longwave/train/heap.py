"""Memory that a step frees is kept for the next one.

glibc gives every block above 32 MB pages of its own and returns them when it is freed, so that each step of training touches
fresh pages again: half the time of a step, where activations are that large. Kept on the heap they are touched once.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
# Of longer sequences blocks are hundreds of megabytes: kept, their holes cost gigabytes, and fresh pages are little beside
# what is computed in them.
LONGEST = 2**19


def keep_freed_memory(context: int) -> None:
    """From here to the end of the process, have the C library keep what is freed. Nothing happens elsewhere than with glibc, or
    where sequences have more than `LONGEST` positions.

    The process then stays at the most memory it has needed, and holes may add to that.

    Source: mallopt(3).
    """
    if context > LONGEST or not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):  # musl has a mallopt that is none
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)

"""Peak extra memory of one call, its results included; measured apart from the timing."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES = -3, 2**18
_RESET_PEAK = "5"  # proc(5): writing 5 sets VmHWM, the peak of the resident set, back to the resident set


def peak_extra_bytes(call: Callable[[], Any], device: str = "cpu") -> int | None:
    """How many bytes a call holds at its peak beyond what was held before it.

    - `call`: should have run once before, so that plans, thread pools and code are there already.
    - `device`: on `cpu` the rise of the peak resident set (Linux only); on CUDA what PyTorch's allocator hands out.

    Returns bytes, or None where this machine cannot say.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    _give_back_free_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, LookupError):  # no Linux, or a /proc that may not be written
        return None


def give_large_blocks_back() -> None:
    """From here to the end of the process, have the C library give large blocks back as they are freed: the resident set is
    then what is held, and not the holes between blocks of other sizes. To be called before there are any; what is computed
    touches fresh pages then, and is slower. Elsewhere than with glibc nothing happens.

    Source: mallopt(3).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def extra_bytes(call: Callable[[], Any], result_bytes: int, planned_bytes: int) -> int:
    """How many bytes a call holds beyond its arguments and its result: what the plan says or what is measured, whichever is
    more. A thread keeps its scratch memory, which no measurement after the first call sees.
    """
    return max(planned_bytes, (peak_extra_bytes(call) or 0) - result_bytes)


def _give_back_free_memory() -> None:
    """Empties the heap's own store: a call that is served from there needs memory without the resident set rising."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)

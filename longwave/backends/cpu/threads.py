"""Runs a kernel over ranges of units on as many threads as PyTorch uses; the kernels let go of the interpreter's lock.

Not Numba's `prange`: its layers die in a forked child, abort on concurrent calls, or are not installed. Ranges are handed
out as threads become free, the caller's thread among them: a busy pool delays a call but never blocks it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from longwave.backends.cpu import pages

# Below this much work a call runs where it is: waking a thread costs about 80 µs.
INLINE_SECONDS = 0.5e-3
# Ranges a thread: enough for one that starts late to be waited for briefly.
RANGES = 4

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def _forget() -> None:
    """A forked child has the pool's object and none of its threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget)


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="longwave")
        return _pools[workers]


def width() -> int:
    return torch.get_num_threads()


def run(work: Callable[[int, int, int], None], units: int, seconds: float, scratch_bytes: int) -> None:
    """Call work(scratch, first, last) on ranges that cover 0 … units, with the address of the thread's scratch memory.

    `seconds` is a guess at the whole on one thread.
    """
    threads = min(width(), units)
    inline = threads <= 1 or seconds < INLINE_SECONDS
    ranges = 1 if inline else min(units, max(threads, min(threads * RANGES, int(seconds / INLINE_SECONDS))))
    cuts = [units * i // ranges for i in range(ranges + 1)]
    turn = itertools.count()

    def share() -> None:
        memory = pages.scratch(scratch_bytes)
        while (i := next(turn)) < ranges:
            work(memory.data_ptr(), cuts[i], cuts[i + 1])

    if inline:
        share()
        return
    helpers: list[Future[None]] = [_pool(width() - 1).submit(share) for _ in range(threads - 1)]
    try:
        share()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()

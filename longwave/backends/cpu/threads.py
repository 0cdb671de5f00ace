"""Runs a kernel over ranges of units on PyTorch's own threads, where PyTorch has an OpenMP runtime, or on a pool of ours.

A pool beside PyTorch's is slow in company: after each of its parallel loops PyTorch's threads spin for milliseconds on the
cores that ours were to use. So a call is one more parallel loop of the runtime that PyTorch itself runs on, found through
PyTorch's library: its threads are awake, and start within microseconds. The runtime hands out the ranges.

Not Numba's `prange`: its layers die in a forked child, abort on concurrent calls, or are not installed. A forked child has
PyTorch's runtime without its threads, so a child uses the pool, and so do systems without that runtime's entry points
(macOS, Windows). Ranges are handed out as threads become free, the caller's thread among them: a busy pool delays a call but
never blocks it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longwave.backends.cpu import pages
from longwave.backends.cpu.jit import kernel, part, pointer
from longwave.backends.cpu.simd import call_bool, call_int, call_nothing, call_with_4, peek

# Below this much work a call runs where it is: waking threads that sleep costs more.
INLINE_SECONDS = 0.1e-3
# Ranges a thread: enough for one that starts late to be waited for briefly.
RANGES = 8

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
_forked = False


def _forget() -> None:
    """A forked child has the objects and none of the threads."""
    global _lock, _forked
    _lock, _forked = threading.Lock(), True
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def width() -> int:
    return torch.get_num_threads()


def _goes_alone(units: int, seconds: float) -> bool:
    return width() <= 1 or units <= 1 or seconds < INLINE_SECONDS


def scratch_bytes(units: int, seconds: float, each: int) -> int:
    """What `run` takes from `pages` on PyTorch's threads."""
    return each if _goes_alone(units, seconds) else width() * _team_bytes(each)


def run(work: Any, program: int, like: Any, units: int, seconds: float, each: int) -> None:
    """Call work(program, scratch, first, last, like) on ranges that cover 0 … units, with the address of its thread's `each`
    bytes of scratch memory. `seconds` is a guess at the whole on one thread."""
    team = None if _forked else openmp()
    if _goes_alone(units, seconds):
        memory = pages.scratch(each)
        work(program, memory.data_ptr(), 0, units, like)
    elif team is not None:
        team.run(work, program, like, units, width(), each)
    else:
        _run_on_pool(work, program, like, units, width(), each)


# PyTorch's own threads.

# What a region is told, in integers: the kernel's address and arguments, then the runtime's functions.
WORK, PROGRAM, SCRATCH, SCRATCH_BYTES, THREAD_NUMBER, NEXT_RANGE, END_LOOP, WORDS = range(8)
# The first bytes of a thread's scratch memory hold the range it was given.
RANGE_BYTES = 64


def _team_bytes(each: int) -> int:
    return -(-(RANGE_BYTES + each) // 64) * 64


@part
def _region(region: int, like: Any) -> None:
    number = call_int(peek(region + THREAD_NUMBER * 8))
    first = peek(region + SCRATCH * 8) + number * peek(region + SCRATCH_BYTES * 8)
    end, scratch = first + 8, first + RANGE_BYTES
    while call_bool(peek(region + NEXT_RANGE * 8), first, end):
        call_with_4(peek(region + WORK * 8), peek(region + PROGRAM * 8), scratch, peek(first), peek(end), like)
    call_nothing(peek(region + END_LOOP * 8))


@kernel
def region_float32(region: int) -> None:
    """What every thread of the team runs: ranges of the loop, as long as there are any."""
    _region(region, np.float32(0))


@kernel
def region_float64(region: int) -> None:
    _region(region, np.float64(0))


@dataclass(frozen=True)
class OpenMP:
    """The entry points that loops compiled by GCC call, in the runtime that PyTorch runs on."""

    parallel_loop: Any
    thread_number: int
    next_range: int
    end_loop: int

    def run(self, work: Any, program: int, like: Any, units: int, threads: int, each: int) -> None:
        each = _team_bytes(each)
        memory = pages.scratch(threads * each, threads)
        words = np.array(
            (pointer(work, like), program, memory.data_ptr(), each, self.thread_number, self.next_range, self.end_loop),
            dtype=np.int64,
        )
        region = region_float64 if isinstance(like, np.float64) else region_float32
        chunk = -(-units // (threads * RANGES))
        self.parallel_loop(pointer(region), words.ctypes.data, threads, 0, units, 1, chunk, 0)


@lru_cache(maxsize=1)
def openmp() -> OpenMP | None:
    """The runtime below PyTorch, or None: macOS and Windows have others."""
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    try:
        # Looked up from PyTorch's library: another package of the process may have brought another runtime.
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        loop, *others = (
            getattr(library, name)
            for name in ("GOMP_parallel_loop_dynamic", "omp_get_thread_num", "GOMP_loop_dynamic_next", "GOMP_loop_end_nowait")
        )
    except (OSError, AttributeError):
        return None
    loop.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, *[ctypes.c_long] * 4, ctypes.c_uint]
    loop.restype = None
    return OpenMP(loop, *(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in others))


# A pool of our own.


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="longwave")
        return _pools[workers]


def _run_on_pool(work: Any, program: int, like: Any, units: int, threads: int, each: int) -> None:
    threads = min(threads, units)
    ranges = min(units, threads * RANGES)
    cuts = [units * i // ranges for i in range(ranges + 1)]
    turn = itertools.count()

    def share() -> None:
        memory = pages.scratch(each)
        while (i := next(turn)) < ranges:
            work(program, memory.data_ptr(), cuts[i], cuts[i + 1], like)

    helpers: list[Future[None]] = [_pool(width() - 1).submit(share) for _ in range(threads - 1)]
    try:
        share()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()

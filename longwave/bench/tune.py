"""Measuring this machine's crossovers: the same calls with one way and another, in turns, and the medians compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from longwave import documents, ring
from longwave.backends.cpu import calls, crossovers, direct, kept, launches, layouts, long_rows, plans, prepared, strips, tables
from longwave.backends.cpu.crossovers import Crossovers
from longwave.bench.stamp import cpu_name
from longwave.ops.long_conv import long_conv

SAMPLES = 2**22
NEVER = 2**62


# Where the engine keeps what `set_crossovers` may change.
PLACES = {
    "six_step_from": (tables, "SIX_STEP_FROM"),
    "block_bytes": (launches, "BASE_BYTES"),
    "windows_gain": (layouts, "WINDOWS_GAIN"),
    "shortest_window": (layouts, "SHORTEST_WINDOW"),
    "longest_window": (layouts, "LONGEST_WINDOW"),
    "whole_rows_bytes": (long_rows, "WHOLE_ROWS_BYTES"),
    "most_taps": (direct, "MOST_TAPS"),
}


@contextmanager
def set_crossovers(**values: Any) -> Iterator[None]:
    """The engine with other values of its crossovers and the limits of windows, by their names in `PLACES`."""
    before = {name: getattr(*PLACES[name]) for name in values}
    _put(values)
    try:
        yield
    finally:
        _put(before)


def _put(values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(*PLACES[name], value)
    # What was decided with other values is forgotten.
    for module in (calls, documents, launches, layouts, kept, plans, prepared, ring, strips, tables):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _call(L: int, K: int) -> Callable[[], object]:
    """A forward and a backward of a batch that fills lanes and threads."""
    B = 4
    H = max(SAMPLES // (B * L), -(-16 * torch.get_num_threads() // B))
    u, k, dy = torch.randn(B, H, L, requires_grad=True), torch.randn(H, K, requires_grad=True), torch.randn(B, H, L)
    return lambda: torch.autograd.grad(long_conv(u, k, backend="cpu"), (u, k), dy)


def _times(L: int, K: int, choices: Sequence[dict[str, Any]], rounds: int = 5) -> list[float]:
    """Seconds with each of the choices, medians of rounds in turns."""
    call = _call(L, K)
    found: list[list[float]] = [[] for _ in choices]
    for turn in range(rounds + 1):
        for values, times in zip(choices, found, strict=True):
            with set_crossovers(**values):
                call()  # makes the programs again
                start = time.perf_counter()
                call()
                if turn:
                    times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in found]


def measure(say: Callable[[str], None]) -> Crossovers:
    """This machine's table; `say` takes a line about every comparison."""
    no_sums: dict[str, Any] = {"most_taps": ((0, 0),)}
    blocks = [2**13, 2**14, 2**15, 2**16]
    times = _times(4096, 4096, [{"block_bytes": size, **no_sums} for size in blocks])
    block = blocks[times.index(min(times))]
    say("block_bytes: " + ", ".join(f"{size:,} {1e3 * t:.1f} ms" for size, t in zip(blocks, times, strict=True)))

    six_step_from = 2**18
    for N in (2**17, 2**16, 2**15, 2**14):
        fused, six = _times(N, N, [{"six_step_from": NEVER}, {"six_step_from": N}])
        say(f"six_step at {N:,}: fused {1e3 * fused:.1f} ms, six_step {1e3 * six:.1f} ms")
        if six > 1.05 * fused:
            break
        six_step_from = N

    together = {"six_step_from": 2**14, "whole_rows_bytes": NEVER}
    whole_rows = 0
    for N in (2**16, 2**17, 2**18, 2**19):
        whole, shared = _times(N, N, [together, {**together, "whole_rows_bytes": 0}], rounds=3)
        say(f"long rows of {N:,}: one a thread {1e3 * whole:.1f} ms, one at a time {1e3 * shared:.1f} ms")
        if whole > shared:
            break
        whole_rows = torch.get_num_threads() * 4 * 9 * N  # the gradients' matrices, of 8 bytes a number and some padding

    ratios = []
    for L, K in ((2**16, 256), (2**16, 1024), (2**16, 4096), (2**14, 256), (2**14, 1024), (4096, 256)):
        one, windows = _times(L, K, [{"windows_gain": 0.0, **no_sums}, {"windows_gain": 1e9, **no_sums}])
        with set_crossovers(**no_sums):
            expected = layouts.expected_gain(L, K)
        say(f"windows of {K:,} taps at {L:,}: one transform {1e3 * one:.1f} ms, windows {1e3 * windows:.1f} ms")
        ratios.append((expected, one - windows))
    gain = max((e for e, _ in ratios), key=lambda g: sum(saved for e, saved in ratios if e <= g), default=1.0)

    most: list[tuple[int, int]] = []
    for length in (131_072, 32_768, 8_192, 64):
        few = 8
        for taps in (16, 24, 32, 48, 64, 96, 128):
            if taps > length:
                break
            sums, transforms = _times(length, taps, [{"most_taps": ((0, taps),)}, no_sums], rounds=3)
            if sums > transforms:
                break
            few = taps
        say(f"direct at {length:,}: up to {few} taps")
        most.append((length, min([few, *(taps for _, taps in most)])))
    most.append((0, min(16, most[-1][1])))

    machine = f"{cpu_name()}, {torch.get_num_threads()} threads"
    return Crossovers(six_step_from, block, round(gain + 0.005, 2), whole_rows, tuple(most), machine, "longwave tune")


def show(table: Crossovers) -> str:
    own = table is not crossovers.MEASURED
    lines = [f"{name:18s}{value}" for name, value in vars(table).items()]
    return "\n".join([f"from {crossovers.file()}" if own else "as measured for the package", *lines])

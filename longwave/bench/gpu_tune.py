"""Measuring what the tables of the GPU engine should say: how each kernel is launched, and up to how many taps direct sums are
faster.

Kernels are timed alone, as the calls that they are part of launch them, in every way that there may be. Rows of launches are
kept (`launch_table`); which regime a call goes in is a part of the arithmetic, and changed by hand (`fir_plan.MOST_TAPS`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from longwave import dtypes
from longwave.backends.triton import fir_plan, launch_table, layouts, plans, shapes, windows
from longwave.backends.triton.configurations import OPERANDS
from longwave.backends.triton.launch_table import Key, Launch, Row, on
from longwave.bench.stamp import Stamp
from longwave.bench.timer import MIN_ROUNDS, Timer, alternate
from longwave.ops.long_conv import long_conv

# About so many samples a call: several times what a second-level cache holds.
SAMPLES = 2**27
COMMAND = "longwave tune --device cuda"
# What may be chosen from: kernels of matrices in registers have no loads to wait for, those through memory do.
MATRICES = (Launch(4), Launch(8))
THROUGH_MEMORY = tuple(Launch(warps, stages) for warps in (4, 8) for stages in (1, 2, 3))
SUMS = (Launch(2), Launch(4), Launch(8), Launch(16))
CHOICES = {
    **dict.fromkeys(("convolve", "convolve_split", "correlate", "correlate_split", "convolve_in_l2"), MATRICES),
    **dict.fromkeys(("analyse", "analyse_split", "synthesise", "synthesise_split"), MATRICES),
    **dict.fromkeys(("outer_forward", "outer_backward"), THROUGH_MEMORY),
    **dict.fromkeys(("fir", "fir_sums", "fir_gather", "add_products", "skip_gradient", "add_up"), SUMS),
    **dict.fromkeys(("row_energies", "row_powers_of_energies", "round_spectra"), SUMS),
}
# Beside every transform in registers: (samples, taps) of windows, split rows and sums.
LONGER = ((2**18, 200), (2**18, 1000), (2**15, 2**15), (2**17, 2**17), (2**20, 2**20), (2**22, 2**22), (2**14, 4), (2**14, 16))
# A history as long as the signal takes the ring's second plane.
KINDS = ("one", "gated", "both")
TAPS = (8, 16, 24, 32, 48, 64, 96, 128)
LENGTHS = (1_024, 4_096, 16_384, 262_144)
DTYPES = (torch.bfloat16, torch.float32)


class Measured(NamedTuple):
    """Milliseconds, medians of rounds in turns, by what was tried."""

    what: str
    ms: dict[str, float]

    @property
    def line(self) -> str:
        return f"{self.what:<46}" + ", ".join(f"{name} {ms:.3f} ms" for name, ms in self.ms.items())


def launches(timer: Timer, stamp: Stamp, device: str = "cuda", samples: int = SAMPLES) -> Iterator[tuple[Row, Measured]]:
    """The fastest launch of every kernel that calls of all lengths and kinds have, with what the others took."""
    known: set[Key] = set()
    for call in _calls(device, samples):
        for key, started in record(call).items():
            if key in known:
                continue
            known.add(key)
            ms = _medians({str(way): run for way in CHOICES[key.kernel] if (run := launch_table.able(started, way))}, timer)
            if ms:
                best = min(CHOICES[key.kernel], key=lambda way: ms.get(str(way), math.inf))
                name = launch_table.name_of(torch.device(device))
                yield Row(key, best, name, stamp.date_utc[:10], COMMAND), Measured(str(key), ms)


def record(call: Callable[[], object]) -> dict[Key, Callable[[Launch], None]]:
    """What a call launches, to be launched again in another way: the first of each kind."""
    found: dict[Key, Callable[[Launch], None]] = {}

    def start(
        kernel: Any, grid: tuple[int, ...], key: Key, device: torch.device, *arguments: Any, fusion: bool = True, **more: Any
    ) -> None:
        def again(way: Launch) -> None:
            with on(device):
                kernel[grid](*arguments, **more, **way._asdict(), enable_fp_fusion=fusion)

        found.setdefault(key, again)
        again(launch_table.launch(key, device))

    with _set(launch_table, "start", start):
        call()
    return found


def sums(timer: Timer, device: str = "cuda", samples: int = SAMPLES) -> Iterator[Measured]:
    """Direct sums beside transforms, forward and backward, from few taps to many."""
    for dtype in DTYPES:
        for L in LENGTHS:
            for K in TAPS:
                call = _call(L, K, dtype, device, samples)
                ways = {"sums": _with_taps(K, call), "transforms": _with_taps(0, call)}
                yield Measured(f"{K} taps of {L:,} {dtypes.name(dtype)}", _medians(ways, timer))


def most_taps(rows: list[Measured], dtype: torch.dtype) -> int:
    """The most taps up to which sums are faster at every length."""
    pairs = [(int(row.what.split()[0]), row.ms) for row in rows if row.what.endswith(dtypes.name(dtype))]
    slower = [taps for taps, ms in pairs if ms["sums"] > ms["transforms"]]
    return max((taps for taps, _ in pairs if not slower or taps < min(slower)), default=0)


def _calls(device: str, samples: int) -> Iterator[Callable[[], object]]:
    for dtype in OPERANDS:
        wide = dtype == torch.float32
        for kind in KINDS:
            lengths = [shape.N for shape in shapes.used(wide, 2 if kind == "both" else 1)]
            yield from (_call(N, N, dtype, device, samples, kind) for N in lengths)
        yield from (_call(L, K, dtype, device, samples, "gated") for L, K in LONGER)


def _call(L: int, K: int, dtype: torch.dtype, device: str, samples: int, kind: str = "one") -> Callable[[], object]:
    """A forward and a backward."""

    def call() -> object:
        return torch.autograd.grad(long_conv(u, k, D, backend="triton", **around), leaves, dy)

    rows = max(1, samples // L)
    B = min(16, rows)
    H = max(1, rows // B)
    u, dy = (torch.randn(B, H, L, device=device).to(dtype) for _ in range(2))
    k, D = torch.randn(H, K, device=device, requires_grad=True), torch.randn(H, device=device, requires_grad=True)
    leaves = [u.requires_grad_(), k, D]
    around: dict[str, Any] = {"one": {}, "gated": {"pregate": dy, "postgate": dy}, "both": {"history": dy}}[kind]
    return call


def _medians(calls: dict[str, Callable[[], object]], timer: Timer) -> dict[str, float]:
    """Milliseconds."""
    found = alternate(calls, timer, rounds=MIN_ROUNDS) if calls else {}
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}


def _with_taps(taps: int, call: Callable[[], object]) -> Callable[[], object]:
    def changed() -> object:
        with _set(fir_plan, "MOST_TAPS", {False: taps, True: taps}):
            return call()

    return changed


@contextmanager
def _set(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    try:
        _put(module, name, value)
        yield
    finally:
        _put(module, name, before)


def _put(module: Any, name: str, value: Any) -> None:
    setattr(module, name, value)
    for cached in (layouts.layout, plans.plan, shapes.fused_shape, shapes.split_shape, windows.length):
        cached.cache_clear()

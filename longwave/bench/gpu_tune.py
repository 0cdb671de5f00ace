"""Measuring what the tables of the GPU engine should say: warps of kernels, and up to how many taps direct sums are faster.

It prints and keeps rows; what becomes the package's is written into `configurations` and `fir_plan` by hand, with the stamp.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from longwave.backends.triton import configurations, fir_plan, layouts, plans, shapes, windows
from longwave.bench.stamp import Stamp
from longwave.bench.timer import MIN_ROUNDS, Timer, alternate
from longwave.ops.long_conv import long_conv

# About so many samples a call: several times what a second-level cache holds.
SAMPLES = 2**27
WARPS = (4, 8)
# What a row of `configurations.LAUNCHES` distinguishes. A history as long as the signal takes the ring's second plane.
KINDS = ("one", "gated", "both")
TAPS = (8, 16, 24, 32, 48, 64, 96, 128)
LENGTHS = (1_024, 4_096, 16_384, 262_144)
DTYPES = (torch.bfloat16, torch.float32)


class Row(NamedTuple):
    """Milliseconds of a forward and backward, medians of rounds in turns, by what was tried."""

    what: str
    dtype: str
    ms: dict[str, float]

    @property
    def line(self) -> str:
        return f"{self.what:<28}{self.dtype:<10}" + ", ".join(f"{name} {ms:.3f} ms" for name, ms in self.ms.items())


def measure(timer: Timer, device: str = "cuda", samples: int = SAMPLES) -> Iterator[Row]:
    """Every transform in registers with 4 and 8 warps, of one plane of the ring, with gates and of both planes; then direct
    sums beside transforms from few taps to many."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        wide = dtype == torch.float32
        for shape in (s for s in shapes.FUSED[wide] if shapes.fused_shape(s.N, wide) == s):
            for kind in KINDS:
                call = _call(shape.N, shape.N, dtype, device, samples, kind)
                times = _times({f"{w} warps": _with_warps(w, call) for w in WARPS}, timer)
                yield Row(f"fused {shape} {kind}", name, times)
        for L in LENGTHS:
            for K in TAPS:
                call = _call(L, K, dtype, device, samples)
                calls = {"sums": _with_taps(K, call), "transforms": _with_taps(0, call)}
                yield Row(f"{K} taps of {L:,}", name, _times(calls, timer))


def launches(rows: list[Row], stamp: Stamp) -> list[str]:
    """Lines for `configurations.LAUNCHES`: the faster number of warps of every 16-bit transform in registers of which all kinds
    were measured."""
    fastest: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.what.startswith("fused ") and row.dtype != "float32":
            _, sides, kind = row.what.split()
            fastest.setdefault(sides, {})[kind] = min(row.ms, key=row.ms.__getitem__).split()[0]
    source = f"{stamp.device!r}, {stamp.date_utc[:10]!r}, {'longwave tune --device cuda'!r}"
    return [
        f"Shape({sides.replace('·', ', ')}): Row({', '.join(warps[kind] for kind in KINDS)}, {source}),"
        for sides, warps in fastest.items()
        if len(warps) == len(KINDS)
    ]


def most_taps(rows: list[Row], dtype: str) -> int:
    """The most taps up to which sums are faster at every length."""
    pairs = [(int(row.what.split()[0]), row.ms) for row in rows if "sums" in row.ms and row.dtype == dtype]
    slower = [taps for taps, ms in pairs if ms["sums"] > ms["transforms"]]
    return max((taps for taps, _ in pairs if not slower or taps < min(slower)), default=0)


def _call(L: int, K: int, dtype: torch.dtype, device: str, samples: int, kind: str = "one") -> Callable[[], object]:
    rows = max(1, samples // L)
    B = min(16, rows)
    H = max(1, rows // B)
    u, dy = (torch.randn(B, H, L, device=device).to(dtype) for _ in range(2))
    k = torch.randn(H, K, device=device, requires_grad=True)
    u.requires_grad_()
    around: dict[str, Any] = {"one": {}, "gated": {"pregate": dy, "postgate": dy}, "both": {"history": dy}}[kind]
    return lambda: torch.autograd.grad(long_conv(u, k, backend="triton", **around), (u, k), dy)


def _times(calls: dict[str, Callable[[], object]], timer: Timer) -> dict[str, float]:
    return {name: 1e3 * statistics.median(found) for name, found in alternate(calls, timer, rounds=MIN_ROUNDS).items()}


def _with_warps(warps: int, call: Callable[[], object]) -> Callable[[], object]:
    return _changed("WARPS", warps, configurations, call)


def _with_taps(taps: int, call: Callable[[], object]) -> Callable[[], object]:
    return _changed("MOST_TAPS", {False: taps, True: taps}, fir_plan, call)


def _changed(name: str, value: Any, module: Any, call: Callable[[], object]) -> Callable[[], object]:
    def changed() -> object:
        with _set(module, name, value):
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

"""Partial convolutions: one long signal under filters from short to as long as itself; right at every shape first.

A filter of K taps costs what K taps are worth: the table puts each beside the same call with K = L, measured in turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import longwave
from longwave.bench.cases import Case
from longwave.bench.contestants import Call, longwave_call
from longwave.bench.gate import judge
from longwave.bench.memory import extra_bytes
from longwave.bench.timer import Spread, alternate, ratio, timer_for
from longwave.bench.truth import exact, make_arrays
from longwave.errors import DataError

SCHEMA, SUFFIX = "longwave partial 1", "partial"
L = 2**20
TAPS = (1_024, 4_096, 16_384, 65_536, L)
SAMPLES = (22, 24)


def about() -> dict[str, Any]:
    """What every row has in common."""
    return {"L": L, "dtype": "float32", "mode": "causal", "direction": "forward"}


@dataclass(frozen=True)
class PartialResult:
    """One filter length: the median in milliseconds, the median over rounds of the time with K = L over that with K, and
    the memory beyond arguments and result, as `memory.extra_bytes` has it.
    """

    backend: str
    samples: int
    B: int
    H: int
    taps: int
    algorithm: str
    ms: float
    times_faster: float
    extra_bytes: int
    extra_bytes_of_full: int
    error: float
    raw_seconds: list[float]

    @property
    def line(self) -> str:
        part = self.extra_bytes_of_full / max(self.extra_bytes, 1)
        return (
            f"{self.backend:<6s} B={self.B} H={self.H:<3d} K={self.taps:<10,d}{self.ms:9.2f} ms  {self.times_faster:6.2f} × "
            f"K=L  extra {self.extra_bytes / 2**20:8.2f} MiB, 1/{part:<6.1f} error {self.error:.1e}  {self.algorithm}"
        )


def measure(backends: Sequence[str], rounds: int, seconds: float) -> Iterator[PartialResult]:
    """Every filter length at every total of samples. Raises DataError where a result is outside of its bound."""
    for backend in backends:
        for exponent in SAMPLES:
            rows = max(1, 2**exponent // L)
            B = min(4, rows)
            yield from _rows(backend, [Case(B=B, H=rows // B, L=L, K=K) for K in TAPS], rounds, seconds)


def _rows(backend: str, cases: list[Case], rounds: int, seconds: float) -> Iterator[PartialResult]:
    calls: dict[str, Call] = {}
    errors: dict[str, float] = {}
    for case in cases:
        operands = make_arrays(case)
        calls[case.name] = longwave_call(backend, case, operands)
        verdict = judge(case, calls[case.name](), exact(case, operands), backend)
        if verdict.failure:
            raise DataError(f"backend {backend} is wrong at {case.name} ({verdict.failure}): nothing is measured")
        errors[case.name] = verdict.errors["y"]
    times = alternate(calls, timer_for("cpu"), rounds=rounds, seconds=seconds)
    plans = {case.name: longwave.plan((case.B, case.H, L), (case.H, case.K), backend=backend) for case in cases}
    extra = {name: extra_bytes(call, plans[name].result_bytes, plans[name].scratch_bytes) for name, call in calls.items()}
    full = next(case.name for case in cases if case.K == L)
    for case in cases:
        yield PartialResult(
            backend=backend,
            samples=case.samples,
            B=case.B,
            H=case.H,
            taps=case.K,
            algorithm=plans[case.name].algorithm,
            ms=1e3 * Spread.of(times[case.name]).median,
            times_faster=ratio(times[case.name], times[full]),
            extra_bytes=extra[case.name],
            extra_bytes_of_full=extra[full],
            error=errors[case.name],
            raw_seconds=times[case.name],
        )

"""Packed documents against what they are packed to avoid: a padded batch, and a loop of one call a document.

Lengths are log-uniform, as many short documents as long ones; every document is held to its bound before anything is timed.
The padded batch is made before the clock starts, and its result is left padded: the rival is spared both copies.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import longwave
from longwave import long_conv
from longwave.bench.cases import Case
from longwave.bench.formula import Arrays
from longwave.bench.memory import extra_bytes
from longwave.bench.timer import Spread, alternate, ratio, timer_for
from longwave.bench.tolerances import bound, relative_l2
from longwave.bench.truth import exact
from longwave.errors import DataError
from longwave.planner import next_fast_len

SCHEMA, SUFFIX = "longwave packed 1", "packed"
DOCUMENTS, MANY, LONGEST, H, SEED = 400, 10_000, 50_000, 8, 0
# Rows of the padded batch that are transformed at a time hold no more than this, spectra and product included.
PADDED_BYTES = 2**31
# Of the many, so many documents are compared with the truth.
CHECKED = 100


def about() -> dict[str, Any]:
    """What every row has in common."""
    return {"H": H, "longest": LONGEST, "lengths": "log-uniform", "seed": SEED, "dtype": "float32", "mode": "causal"}


@dataclass(frozen=True)
class PackedResult:
    """One backend: medians in milliseconds, medians over rounds of the rivals' times over ours, the memory beyond arguments
    and result as `memory.extra_bytes` has it, the largest error of a document, and whether all have the bits of each
    document alone. Without rivals the time is that of one call.
    """

    backend: str
    documents: int
    samples: int
    ms: float
    padded_ms: float | None
    times_padded: float | None
    loop_ms: float | None
    times_loop: float | None
    extra_bytes: int
    error: float
    same_bits: bool
    raw_seconds: dict[str, list[float]]

    @property
    def line(self) -> str:
        found = f"{self.backend:<6s} {self.documents:>6,d} documents, {self.samples:>10,d} samples  {self.ms:9.1f} ms"
        if self.padded_ms is not None:
            found += f"  padded batch {self.padded_ms:9.1f} ms ({self.times_padded:.2f} ×)"
        if self.loop_ms is not None:
            found += f"  loop {self.loop_ms:9.1f} ms ({self.times_loop:.2f} ×)"
        bits = "the bits" if self.same_bits else "not the bits"
        return (
            f"{found}  extra memory {self.extra_bytes / 2**20:.1f} MiB  error {self.error:.1e}, {bits} of each document alone"
        )


class _Packed:
    """Documents of H channels in one row, and one filter a channel as long as the longest."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(SEED)
        lengths = torch.exp(torch.rand(count, generator=generator, dtype=torch.float64) * math.log(LONGEST)).long()
        lengths[0] = LONGEST  # the padded batch is as long as it was said to be
        self.bounds = [0, *lengths.cumsum(0).tolist()]
        self.u = torch.randn(1, H, self.bounds[-1], generator=generator)
        self.k = torch.randn(H, LONGEST, generator=generator) * LONGEST**-0.5
        self.cu_seqlens = torch.tensor(self.bounds, dtype=torch.int32)

    def packed(self, backend: str) -> Tensor:
        return long_conv(self.u, self.k, cu_seqlens=self.cu_seqlens, backend=backend)

    def alone(self, i: int, backend: str) -> Tensor:
        return long_conv(self.u[..., self.bounds[i] : self.bounds[i + 1]], self.k, backend=backend)

    def loop(self, backend: str) -> None:
        for i in range(len(self.bounds) - 1):
            self.alone(i, backend)

    def padded(self) -> Callable[[], None]:
        """The formula on (documents, H, longest), in parts that fit."""
        n = next_fast_len(2 * LONGEST - 1)
        batch = torch.zeros(len(self.bounds) - 1, H, LONGEST)
        for row, (start, end) in zip(batch, itertools.pairwise(self.bounds), strict=True):
            row[:, : end - start] = self.u[0, :, start:end]
        parts = batch.split(max(1, PADDED_BYTES // (4 * H * 4 * n)))

        def formula() -> None:
            k_f = torch.fft.rfft(self.k, n)
            for part in parts:
                torch.fft.irfft(torch.fft.rfft(part, n) * k_f, n)[..., :LONGEST]

        return formula

    def judge(self, y: Tensor, backend: str, every: int) -> tuple[float, bool]:
        """The largest error of every so-many-th document, and whether these have the bits of each alone.

        Raises DataError where one is outside of its bound.
        """
        worst, same_bits = 0.0, True
        for i in range(0, len(self.bounds) - 1, every):
            start, end = self.bounds[i : i + 2]
            case = Case(B=1, H=H, L=end - start, K=end - start)
            row = Arrays(self.u[..., start:end], self.k[:, : end - start], None, None, None, None)
            error = relative_l2(y[..., start:end], exact(case, row)["y"])
            if not error <= bound(torch.float32, end - start, backend):
                raise DataError(
                    f"backend {backend} is wrong by {error:.1e} in a document of {end - start:,}: nothing is measured"
                )
            worst = max(worst, error)
            same_bits = same_bits and torch.equal(y[..., start:end], self.alone(i, backend))
        return worst, same_bits


def measure(backends: Sequence[str], rounds: int, seconds: float) -> Iterator[PackedResult]:
    """The documents beside both rivals, then many of them for their memory. Raises DataError where a result is wrong."""
    for backend in backends:
        yield _beside_rivals(backend, rounds, seconds)
        yield _many(backend)


def _beside_rivals(backend: str, rounds: int, seconds: float) -> PackedResult:
    documents = _Packed(DOCUMENTS)
    error, same_bits = documents.judge(documents.packed(backend), backend, every=1)
    calls = {
        "packed": lambda: documents.packed(backend),
        "padded": documents.padded(),
        "loop": lambda: documents.loop(backend),
    }
    times = alternate(calls, timer_for("cpu"), rounds=rounds, seconds=seconds)
    medians = {name: 1e3 * Spread.of(readings).median for name, readings in times.items()}
    return PackedResult(
        backend=backend,
        documents=DOCUMENTS,
        samples=documents.bounds[-1],
        ms=medians["packed"],
        padded_ms=medians["padded"],
        times_padded=ratio(times["packed"], times["padded"]),
        loop_ms=medians["loop"],
        times_loop=ratio(times["packed"], times["loop"]),
        extra_bytes=_extra(documents, backend),
        error=error,
        same_bits=same_bits,
        raw_seconds=times,
    )


def _many(backend: str) -> PackedResult:
    documents = _Packed(MANY)
    error, same_bits = documents.judge(documents.packed(backend), backend, every=max(1, MANY // CHECKED))
    start = time.perf_counter()
    extra = _extra(documents, backend)
    took = time.perf_counter() - start
    return PackedResult(
        backend=backend,
        documents=MANY,
        samples=documents.bounds[-1],
        ms=1e3 * took,
        padded_ms=None,
        times_padded=None,
        loop_ms=None,
        times_loop=None,
        extra_bytes=extra,
        error=error,
        same_bits=same_bits,
        raw_seconds={"packed": [took]},
    )


def _extra(documents: _Packed, backend: str) -> int:
    plan = longwave.plan(documents.u.shape, documents.k.shape, cu_seqlens=documents.bounds, backend=backend)
    return extra_bytes(lambda: documents.packed(backend), documents.u.nbytes, plan.scratch_bytes)
